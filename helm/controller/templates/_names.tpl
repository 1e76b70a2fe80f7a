{{/* Names and labels that every object of the chart shares. */}}

{{- define "controller.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "culvert-controller" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-culvert-controller" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "controller.selector" -}}
app.kubernetes.io/name: culvert-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "controller.labels" -}}
{{ include "controller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: culvert
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "controller.metadata" -}}
labels:
  {{- include "controller.labels" . | nindent 2 }}
{{- with .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "controller.claim" -}}
{{- .Values.persistence.existingClaim | default (include "controller.name" .) -}}
{{- end -}}

{{- define "controller.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* The host of the public address, without port and brackets. */}}
{{- define "controller.publicHost" -}}
{{- regexReplaceAll ":[0-9]+$" .Values.publicAddress "" | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}

{{/* Listening address and port as a TOML string. */}}
{{- define "controller.bind" -}}
{{- $address := (index . 0).Values.bindAddress -}}
{{- if contains ":" $address }}{{ $address = printf "[%s]" $address }}{{ end -}}
{{- printf "%s:%d" $address (int (index . 1)) | toJson -}}
{{- end -}}

{{/* The configuration file. JSON strings and lists of strings are TOML too. */}}
{{- define "controller.config" -}}
domain = {{ toJson .Values.domain }}
listen = {{ include "controller.bind" (list . 8443) }}
public_address = {{ toJson .Values.publicAddress }}
public_names = {{ prepend .Values.publicNames (include "controller.publicHost" .) | uniq | toJson }}
data_dir = "/var/lib/culvert"
{{- if eq .Values.database.kind "postgres" }}

[database]
url_file = {{ printf "/run/secrets/culvert/database/%s" .Values.database.existingSecret.key | toJson }}
{{- end }}
{{- if .Values.keys.existingSecret.name }}

[keys]
kek_file = {{ printf "/run/secrets/culvert/keys/%s" .Values.keys.existingSecret.key | toJson }}
{{- end }}

[ops]
listen = {{ include "controller.bind" (list . .Values.ops.port) }}

[bootstrap]
org = {{ toJson .Values.bootstrap.organisation }}
user = {{ toJson .Values.bootstrap.user }}
code_file = "/var/lib/culvert/sign-in-code"

[shutdown]
grace_seconds = {{ int .Values.shutdownGraceSeconds }}
{{- if or .Values.agents.minimumVersion .Values.agents.chart }}

[agents]
{{- with .Values.agents.minimumVersion }}
minimum_version = {{ toJson . }}
{{- end }}
{{- with .Values.agents.chart }}
chart = {{ toJson . }}
{{- end }}
{{- end }}
{{- with .Values.limits }}

[limits]
{{- range $key, $value := . }}
{{ $key }} = {{ int $value }}
{{- end }}
{{- end }}

[log]
format = {{ toJson .Values.log.format }}
level = {{ toJson .Values.log.level }}
{{- end -}}
