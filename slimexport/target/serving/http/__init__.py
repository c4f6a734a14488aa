"""A runtime on the network: the Open Inference Protocol over HTTP, Prometheus metrics, a page. Needs the extra `serve`."""
