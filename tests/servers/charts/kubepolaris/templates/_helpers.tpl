{{- define "kp.full" -}}
{{- if contains "kubepolaris" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-kubepolaris{{ end -}}
{{- end }}
{{- define "kp.labels" -}}
app.kubernetes.io/name: kubepolaris
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: Helm
{{- end }}
{{- define "kp.jwt" -}}
{{- .Values.security.existingSecret | default (printf "%s-secrets" (include "kp.full" .)) -}}
{{- end }}
{{- define "kp.dbsecret" -}}
{{- if .Values.mysql.internal.existingSecret }}{{ .Values.mysql.internal.existingSecret -}}
{{- else if .Values.mysql.internal.enabled }}{{ include "kp.full" . }}-mysql
{{- else }}{{ .Values.mysql.external.existingSecret }}{{ end -}}
{{- end }}
