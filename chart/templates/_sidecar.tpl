{{/*
The sidecar, for the chart of a database. With kpbackup as a dependency (mode: sidecar), its StatefulSet includes

    metadata:  labels:      {{- include "kpbackup.sidecar.labels" .Subcharts.kpbackup | nindent 8 }}
    containers:             {{- include "kpbackup.sidecar.container" .Subcharts.kpbackup | nindent 8 }}
    volumes:                {{- include "kpbackup.sidecar.volumes" .Subcharts.kpbackup | nindent 8 }}

See chart/examples/mysql-sidecar. The daemon in it creates the repository when there is none; until the database answers it
ends and is started again.
*/}}
{{- define "kpbackup.sidecar.container" -}}
{{- include "kpbackup.validate" . -}}
- {{ include "kpbackup.container" (dict "ctx" . "role" "writer" "component" "sidecar" "args" (list "daemon" "--init") "serves" true "sidecar" true) | nindent 2 | trim }}
{{- end -}}

{{- define "kpbackup.sidecar.volumes" -}}
{{ include "kpbackup.volumes" (dict "ctx" . "role" "writer" "component" "sidecar" "sidecar" true) }}
{{- end -}}

{{/* What Service and ServiceMonitor select; beside the labels of the database's own chart. */}}
{{- define "kpbackup.sidecar.labels" -}}
kpbackup.io/sidecar: {{ .Release.Name }}
{{- end -}}

{{- define "kpbackup.sidecar.annotations" -}}
kpbackup.io/checksum-config: {{ include "kpbackup.settings" (dict "ctx" . "role" "writer") | sha256sum }}
{{- end -}}
