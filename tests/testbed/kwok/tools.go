//go:build tools

// Package tools pins what the test bed builds from other modules; kwok's dependencies differ from Kubernetes' own.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
