// The process that holds a Pod's namespaces.
module pippin.dev/hack/tools/kind/pause

go 1.26.0
