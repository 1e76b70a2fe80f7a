{{/* Names and labels that every object of the chart shares. */}}

{{- define "agent.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "culvert-agent" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-culvert-agent" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide objects carry the namespace too: two agents may share a cluster. */}}
{{- define "agent.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "agent.name" .) -}}
{{- end -}}

{{- define "agent.selector" -}}
app.kubernetes.io/name: culvert-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agent.metadata" -}}
labels:
  {{- include "agent.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/component: agent
  app.kubernetes.io/part-of: culvert
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "agent.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "agent.name" .) -}}
{{- end -}}

{{/* The Secret that holds the join token: the chart's own or one that exists. */}}
{{- define "agent.tokenSecret" -}}
{{- .Values.existingTokenSecret.name | default (printf "%s-token" (include "agent.name" .)) -}}
{{- end -}}

{{- define "agent.hasToken" -}}
{{- if or .Values.token .Values.existingTokenSecret.name }}yes{{ end -}}
{{- end -}}

{{/* The Secret in which the agent keeps its key and certificate. */}}
{{- define "agent.stateSecret" -}}
{{- printf "%s-state" (include "agent.name" .) -}}
{{- end -}}

{{- define "agent.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* Where the agent's own connection goes: to the proxy if there is one. A URL
     without a port means 80 or 443. */}}
{{- define "agent.outboundPort" -}}
{{- $url := trimSuffix "/" .Values.proxy.url -}}
{{- if regexMatch ":[0-9]+$" $url -}}
{{- regexFind "[0-9]+$" $url -}}
{{- else if hasPrefix "https:" $url -}}443
{{- else if $url -}}80
{{- else -}}
{{- regexFind "[0-9]+$" .Values.controller.address -}}
{{- end -}}
{{- end -}}
