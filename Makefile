# The menu. Every line calls a script in hack/, which may just as well be called by hand.
.DEFAULT_GOAL := help
.PHONY: help venv lint fmt unit node test test-vllm e2e bench soak demo demo-down images kind kind-down e2e-kind \
  generate verify clean

help:      ; @sed -n 's/^\([a-z0-9-]*\) *:.*## \([^\]*\)$$/  make \1\t\2/p' Makefile | expand -t 20
demo:      ; @hack/demo.sh       ## a real model answers on this machine, from nothing; stays up
demo-down: ; @hack/demo-down.sh  ## end the demo and remove everything that it made
venv:      ; @hack/venv.sh       ## .venv with everything that working on Pippin takes
unit:      ; @hack/test.sh unit  ## tests without cluster and model, in seconds
node:      ; @hack/test.sh node  ## the node agent on an embedded control plane, also on a Mac
e2e:       ; @hack/test.sh e2e   ## the whole product on a cluster of its own (or the one of KUBECONFIG)
test-vllm: ; @hack/test.sh vllm  ## the server with vLLM's build for CPUs
test:      ; @hack/test.sh       ## lint and every layer of tests
images:    ; @hack/images/build.sh ## the container images, with the Docker there is or one of its own
kind:      ; @hack/kind/up.sh    ## a kind cluster with the images in it; stays up
kind-down: ; @hack/kind/down.sh  ## remove the kind cluster, and the Docker if it is its own
e2e-kind:  ; @hack/kind/e2e.sh   ## the whole product on that kind cluster
bench:     ; @hack/bench.sh      ## speed, against the goals
soak:      ; @hack/soak.sh       ## ten minutes of traffic while replicas and Redis are killed
lint:      ; @hack/lint.sh       ## everything that judges the sources without running them
fmt:       ; @hack/fmt.sh        ## bring the sources into shape
generate:  ; @hack/generate.sh   ## write CRDs, chart tables and reference pages from their sources
verify:    ; @hack/verify.sh     ## fail when something generated is out of date
clean:     ; @hack/clean.sh      ## remove .venv and build leftovers, never a demo or the cache
