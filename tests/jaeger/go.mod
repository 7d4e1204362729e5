// Pins Jaeger 2.13.0, which Go names v1.76.0: the same commit, and the module's path has no /v2.
// The tests build it from here, once, into a cache (tests/support/jaeger_build.py). go.sum holds Jaeger's own
// hash alone: those of all that it is built from are in the go.sum that lies in its module.
module tokenmesh.invalid/jaeger

go 1.24.6

require github.com/jaegertracing/jaeger v1.76.0

// As in Jaeger's own go.mod: a replacement counts only in the module that is built.
replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
