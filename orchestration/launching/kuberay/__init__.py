"""The KubeRay target: each attempt is one RayJob in one of several Kubernetes contexts."""
