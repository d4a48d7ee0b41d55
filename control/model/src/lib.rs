//! Desired state: Kubernetes objects in, dataplane objects out, and address allocation; no IO.
