//go:build tools

// Package tools pins what the test bed builds from other modules; Helm's Kubernetes is another than the bed's own.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
