{{/* Names, labels and the image. */}}

{{- define "kpbackup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that names of Jobs (which get a suffix of their own) stay within 63. */}}
{{- define "kpbackup.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "kpbackup.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kpbackup.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kpbackup.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kpbackup.name" .ctx }}
app.kubernetes.io/instance: {{ .ctx.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "kpbackup.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .ctx.Chart.Name .ctx.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "kpbackup.selectorLabels" . }}
app.kubernetes.io/version: {{ .ctx.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .ctx.Release.Service }}
{{- end -}}

{{- define "kpbackup.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The label `source` of the metrics: source.name, else host:port. */}}
{{- define "kpbackup.source" -}}
{{- $source := .Values.config.source -}}
{{- default (printf "%s:%v" $source.host (default 3306 $source.port | int)) $source.name -}}
{{- end -}}

{{/* What serves the metrics: the component that Service, ServiceMonitor and PodDisruptionBudget select. */}}
{{- define "kpbackup.serving" -}}
{{- get (dict "daemon" "daemon" "cronjob" "exporter" "sidecar" "sidecar") .Values.mode -}}
{{- end -}}

{{- define "kpbackup.isServing" -}}
{{- if or (ne .Values.mode "cronjob") .Values.exporter.enabled -}}yes{{- end -}}
{{- end -}}

{{- define "kpbackup.continuous" -}}
{{- $archive := default dict .Values.config.archive -}}
{{- if hasKey $archive "continuous" -}}
{{- if $archive.continuous -}}yes{{- end -}}
{{- else if ne .Values.mode "cronjob" -}}yes{{- end -}}
{{- end -}}

{{/* Whether failures are told as Kubernetes Events. */}}
{{- define "kpbackup.events" -}}
{{- $notify := default dict .Values.config.notify -}}
{{- if $notify.kubernetes_events -}}yes{{- end -}}
{{- end -}}

{{/* The namespace of the application that is kept beside the database; empty when there is none. */}}
{{- define "kpbackup.application" -}}
{{- default "" (default dict .Values.config.application).namespace -}}
{{- end -}}

{{/* Whether what makes full backups asks the API: for Events, or for the application. */}}
{{- define "kpbackup.fullAsksApi" -}}
{{- if or (include "kpbackup.events" .) (include "kpbackup.application" .) -}}yes{{- end -}}
{{- end -}}

{{/* The scratch namespace in which a drill starts its server, empty when it starts none there. */}}
{{- define "kpbackup.drillNamespace" -}}
{{- $drill := default dict .Values.config.drill -}}
{{- if .Values.drill.enabled -}}{{- get (default dict $drill.kubernetes) "namespace" -}}{{- end -}}
{{- end -}}

{{- define "kpbackup.signingSecret" -}}
{{- default (printf "%s-signing" (include "kpbackup.fullname" .)) .Values.secrets.signing.name -}}
{{- end -}}

{{/* The service account of a role: writer, check, prune, drill, init. */}}
{{- define "kpbackup.serviceAccountName" -}}
{{- $account := .ctx.Values.serviceAccount -}}
{{- if has .role (list "check" "prune" "drill") -}}
{{- $account = (get .ctx.Values .role).serviceAccount -}}
{{- end -}}
{{- if $account.name -}}{{ $account.name }}
{{- else if or $account.create (eq .role "init") -}}
{{- if has .role (list "writer" "exporter") -}}{{ include "kpbackup.fullname" .ctx }}{{- else -}}{{ include "kpbackup.fullname" .ctx }}-{{ .role }}{{- end -}}
{{- else -}}default{{- end -}}
{{- end -}}

{{- define "kpbackup.sourcePort" -}}
{{- default 3306 .Values.config.source.port | int -}}
{{- end -}}

{{/* The TCP port of the store; nothing for a directory. */}}
{{- define "kpbackup.storePort" -}}
{{- $repository := .Values.config.repository -}}
{{- if hasPrefix "s3://" (toString $repository.url) -}}
{{- if $repository.endpoint_url -}}
{{- $url := urlParse $repository.endpoint_url -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port -}}
{{- else -}}443{{- end -}}
{{- end -}}
{{- end -}}
