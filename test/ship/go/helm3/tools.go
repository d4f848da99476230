//go:build tools

// Package tools pins Helm 3, which tests render and install the chart with.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
