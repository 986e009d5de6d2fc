{{/*
The pod of a role. Arguments: ctx, role, component, args; optionally serves (it answers HTTP), restartPolicy, resources, config
(name of the ConfigMap), and `token` (it may ask the API).
*/}}

{{- define "kpbackup.container" -}}
{{- $values := .ctx.Values -}}
name: kpbackup
image: {{ include "kpbackup.image" .ctx | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ toJson .args }}
{{- with $values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range fromYamlArray (include "kpbackup.files" .) }}
{{- if not (contains "." .setting) }}
  - name: {{ .setting }}
    value: {{ printf "%s/%s/%s" (include "kpbackup.secretsDirectory" $) .volume .key }}
{{- end }}
{{- end }}
{{- with $values.caBundle.configMap }}
  - {name: AWS_CA_BUNDLE, value: /etc/kpbackup-ca/ca.crt}
{{- end }}
{{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .serves }}
ports:
  - {name: http, containerPort: 8080, protocol: TCP}
livenessProbe:
  {{- include "kpbackup.probe" $values.probes.liveness | nindent 2 }}
readinessProbe:
  {{- include "kpbackup.probe" $values.probes.readiness | nindent 2 }}
{{- end }}
resources:
  {{- toYaml (default $values.resources .resources) | nindent 2 }}
volumeMounts:
  - {name: {{ include "kpbackup.volumePrefix" . }}config, mountPath: /etc/kpbackup, readOnly: true}
  - {name: {{ include "kpbackup.volumePrefix" . }}tmp, mountPath: /tmp}
{{- range fromYamlArray (include "kpbackup.files" .) }}
  - {name: {{ include "kpbackup.volumePrefix" $ }}{{ .volume }}, mountPath: {{ include "kpbackup.secretsDirectory" $ }}/{{ .volume }}, readOnly: true}
{{- end }}
{{- if $values.caBundle.configMap }}
  - {name: {{ include "kpbackup.volumePrefix" . }}ca, mountPath: /etc/kpbackup-ca, readOnly: true}
{{- end }}
{{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kpbackup.probe" -}}
httpGet: {path: {{ .path }}, port: http}
{{ toYaml (omit . "path") }}
{{- end -}}

{{- define "kpbackup.volumePrefix" -}}
{{- if .sidecar -}}kpbackup-{{- end -}}
{{- end -}}

{{/* Secrets are optional here: kpbackup itself waits for a missing one and names it, where the kubelet would only hang. */}}
{{- define "kpbackup.volumes" -}}
{{- $values := .ctx.Values -}}
- name: {{ include "kpbackup.volumePrefix" . }}config
  configMap:
    name: {{ default (include "kpbackup.fullname" .ctx) .config }}
    items: [{key: {{ .role }}.yaml, path: kpbackup.yaml}]
- {name: {{ include "kpbackup.volumePrefix" . }}tmp, emptyDir: {sizeLimit: 1Gi}}
{{- range fromYamlArray (include "kpbackup.files" .) }}
- name: {{ include "kpbackup.volumePrefix" $ }}{{ .volume }}
  secret: {secretName: {{ .secret }}, optional: true, defaultMode: 0440, items: [{key: {{ .key }}, path: {{ .key }}}]}
{{- end }}
{{- with $values.caBundle.configMap }}
- name: {{ include "kpbackup.volumePrefix" $ }}ca
  configMap: {name: {{ . }}, items: [{key: {{ $values.caBundle.key }}, path: ca.crt}]}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kpbackup.podMetadata" -}}
labels:
  {{- include "kpbackup.labels" . | nindent 2 }}
  {{- with .ctx.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "kpbackup.settings" . | sha256sum }}
  {{- with .ctx.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "kpbackup.podSpec" -}}
{{- $values := .ctx.Values -}}
serviceAccountName: {{ include "kpbackup.serviceAccountName" . }}
automountServiceAccountToken: {{ ternary "true" "false" (ne (default "" .token) "") }}
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with .grace }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy $values.affinity }}
{{- if eq .component "daemon" }}
{{- $affinity = mergeOverwrite (fromYaml (include "kpbackup.antiAffinity" .)) $affinity }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and (eq .component "daemon") $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range $values.topologySpreadConstraints }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not (hasKey . "labelSelector") }}
    labelSelector:
      matchLabels:
        {{- include "kpbackup.selectorLabels" $ | nindent 8 }}
    {{- end }}
{{- end }}
{{- end }}
containers:
  - {{ include "kpbackup.container" . | nindent 4 | trim }}
volumes:
  {{- include "kpbackup.volumes" . | nindent 2 }}
{{- end -}}

{{- define "kpbackup.antiAffinity" -}}
{{- $term := dict "labelSelector" (dict "matchLabels" (fromYaml (include "kpbackup.selectorLabels" .))) "topologyKey" "kubernetes.io/hostname" -}}
{{- if eq .ctx.Values.podAntiAffinity "required" -}}
{{- toYaml (dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term))) -}}
{{- else if eq .ctx.Values.podAntiAffinity "preferred" -}}
{{- toYaml (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)))) -}}
{{- end -}}
{{- end -}}

{{/* A Job's spec: ctx, role, component, args, limits (activeDeadlineSeconds, backoffLimit), token. */}}
{{- define "kpbackup.jobSpec" -}}
activeDeadlineSeconds: {{ .limits.activeDeadlineSeconds }}
backoffLimit: {{ default 0 .limits.backoffLimit }}
template:
  metadata:
    {{- include "kpbackup.podMetadata" . | nindent 4 }}
  spec:
    {{- include "kpbackup.podSpec" (merge (dict "restartPolicy" "Never") .) | nindent 4 }}
{{- end -}}

{{/* A CronJob: as jobSpec, and schedule. */}}
{{- define "kpbackup.cronJob" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "kpbackup.fullname" .ctx }}-{{ .component }}
  labels:
    {{- include "kpbackup.labels" . | nindent 4 }}
spec:
  schedule: {{ .schedule | quote }}
  timeZone: {{ default "UTC" .ctx.Values.config.timezone }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {{ .ctx.Values.jobs.startingDeadlineSeconds }}
  successfulJobsHistoryLimit: {{ .ctx.Values.jobs.successfulJobsHistoryLimit }}
  failedJobsHistoryLimit: {{ .ctx.Values.jobs.failedJobsHistoryLimit }}
  jobTemplate:
    metadata:
      labels:
        {{- include "kpbackup.labels" . | nindent 8 }}
    spec:
      {{- include "kpbackup.jobSpec" . | nindent 6 }}
{{- end -}}
