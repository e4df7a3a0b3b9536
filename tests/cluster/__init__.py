"""Tests against a real Kubernetes with KubeRay: `make test-cluster`."""
