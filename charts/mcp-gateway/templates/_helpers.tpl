{{/* Full name of the release: its name, with the chart's name when it is not part of it. */}}
{{- define "mcp-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object; never a selector. */}}
{{- define "mcp-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mcp-gateway.controllerImage" -}}
{{ .Values.imageController.repository }}:{{ .Values.imageController.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "mcp-gateway.webhookImage" -}}
{{ .Values.webhook.image.repository | default (printf "%s/webhook" (dir .Values.imageController.repository)) }}:{{ coalesce .Values.webhook.image.tag .Values.imageController.tag .Chart.AppVersion }}
{{- end -}}

{{- define "mcp-gateway.cliImage" -}}
{{ .Values.uninstall.image.repository | default (printf "%s/cli" (dir .Values.imageController.repository)) }}:{{ coalesce .Values.uninstall.image.tag .Values.imageController.tag .Chart.AppVersion }}
{{- end -}}

{{- define "mcp-gateway.brokerImage" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "mcp-gateway.resources" -}}
{{- if .Values.resources -}}
{{ toYaml .Values.resources }}
{{- else -}}
requests:
  cpu: 50m
  memory: 64Mi
limits:
  memory: 256Mi
{{- end -}}
{{- end -}}

{{/* Name of the extension: the release's full name; one of an older chart, named with -extension, keeps its name. */}}
{{- define "mcp-gateway.extensionName" -}}
{{- $full := include "mcp-gateway.fullname" . -}}
{{- $old := printf "%s-extension" $full -}}
{{- if .Values.mcpGatewayExtension.name -}}
{{- .Values.mcpGatewayExtension.name -}}
{{- else -}}
{{- $found := lookup "mcp.kuadrant.io/v1alpha1" "MCPGatewayExtension" .Release.Namespace $old -}}
{{- $owner := dig "metadata" "annotations" "meta.helm.sh/release-name" "" ($found | default dict) -}}
{{- if eq $owner .Release.Name -}}{{ $old }}{{- else -}}{{ $full }}{{- end -}}
{{- end -}}
{{- end -}}
