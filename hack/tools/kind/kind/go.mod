// kind itself, and the files of its node image.
module pippin.dev/hack/tools/kind/kind

go 1.26.0

godebug default=go1.26
