//go:build tools

// Package tools pins Helm 4, which tests render and install the chart with.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
