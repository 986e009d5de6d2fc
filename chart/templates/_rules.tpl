{{/*
Alerts and recording rules. Every alert says what is wrong in `summary`, what it means in `description`, and links to its section
of the runbook. Names of metrics are checked against the program by a test; conditions are tried with promtool, fault by fault.
Of one source all daemons tell the same, so that series are joined by source; what is unknown is absent and alerts on its own.
*/}}
{{- define "kpbackup.alert" -}}
- alert: {{ .name }}
  expr: {{ .expr | quote }}
  for: {{ .for }}
  labels:
    severity: {{ .severity }}
    {{- with .rules.alertLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    runbook_url: {{ printf "%s#%s" .rules.runbookUrl (lower .name) | quote }}
{{ end -}}

{{- define "kpbackup.selector" -}}
{{- if .Values.metrics.prometheusRule.selector -}}
{{- .Values.metrics.prometheusRule.selector -}}
{{- else -}}
{{- printf "namespace=%q,job=%q" .Release.Namespace (include "kpbackup.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Scheduled since it last succeeded, or never succeeded, and does not run. */}}
{{- define "kpbackup.lastRunFailed" -}}
{{- $which := printf "namespace=%q,%s" .namespace .cronjob -}}
{{- printf "(kube_cronjob_status_last_schedule_time{%s} > on (namespace, cronjob) kube_cronjob_status_last_successful_time or on (namespace, cronjob) (kube_cronjob_status_last_schedule_time{%s} unless on (namespace, cronjob) kube_cronjob_status_last_successful_time)) and on (namespace, cronjob) kube_cronjob_status_active == 0" $which $which -}}
{{- end -}}

{{- define "kpbackup.ruleGroups" -}}
{{- $rules := .Values.metrics.prometheusRule -}}
{{- $for := $rules.forDuration -}}
{{- $s := include "kpbackup.selector" . -}}
{{- $full := include "kpbackup.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
{{- $of := "{{ $labels.source }}" -}}
{{- $without := list -}}
{{- if not .Values.drill.enabled -}}{{- $without = append $without "KpbackupDrillMissing" -}}{{- end -}}
{{- if not (include "kpbackup.continuous" .) -}}{{- $without = concat $without (list "KpbackupLeaseWithoutHolder" "KpbackupArchiveStalled") -}}{{- end -}}
{{- if not .Values.check.enabled -}}{{- $without = append $without "KpbackupCheckMissing" -}}{{- end -}}
- name: {{ $full }}.slo
  rules:
    - record: source:kpbackup_achieved_rpo_seconds:min
      expr: {{ printf "min by (source) (kpbackup_achieved_rpo_seconds{%s})" $s | quote }}
    - record: source:kpbackup_objective_rpo_seconds:min
      expr: {{ printf "min by (source) (kpbackup_objective_rpo_seconds{%s})" $s | quote }}
    - record: source:kpbackup_objective_rto_seconds:min
      expr: {{ printf "min by (source) (kpbackup_objective_rto_seconds{%s})" $s | quote }}
    - record: source:kpbackup_rpo_kept:bool
      expr: "source:kpbackup_achieved_rpo_seconds:min <= bool source:kpbackup_objective_rpo_seconds:min"
    - record: source:kpbackup_rto_kept:bool
      expr: {{ printf "max by (source) (kpbackup_measured_rto_seconds{%s}) <= bool source:kpbackup_objective_rto_seconds:min" $s | quote }}
# weeks of samples are much to read: seldom is enough
- name: {{ $full }}.month
  interval: 15m
  rules:
    - record: source:kpbackup_rpo_kept:ratio_30d
      expr: "avg_over_time(source:kpbackup_rpo_kept:bool[30d])"
- name: {{ $full }}.recovery
  rules:
    {{- range (list
      (dict "name" "KpbackupRpoAtRisk" "severity" "warning" "for" $for.soon
        "expr" "source:kpbackup_achieved_rpo_seconds:min > 0.5 * source:kpbackup_objective_rpo_seconds:min <= source:kpbackup_objective_rpo_seconds:min"
        "summary" (printf "%s: over half of the RPO is used" $of)
        "description" "If the source were lost now, {{ $value | humanizeDuration }} of changes would be lost: the archive falls behind.")
      (dict "name" "KpbackupRpoExceeded" "severity" "critical" "for" $for.urgent
        "expr" "source:kpbackup_achieved_rpo_seconds:min > source:kpbackup_objective_rpo_seconds:min"
        "summary" (printf "%s: the RPO is broken" $of)
        "description" "If the source were lost now, {{ $value | humanizeDuration }} of changes would be lost, more than was promised.")
      (dict "name" "KpbackupRecoveryPointUnknown" "severity" "critical" "for" $for.slow
        "expr" (printf "count by (source) (kpbackup_build_info{%s}) unless on (source) kpbackup_recovery_point_timestamp_seconds{%s} unless on (source) kpbackup_job_running{%s,kind=\"full\"} == 1" $s $s $s)
        "summary" (printf "%s: nothing can be restored" $of)
        "description" "kpbackup runs and there is no recovery point: no backup set is stored, or the repository was never read.")
      (dict "name" "KpbackupFullTooOld" "severity" "warning" "for" $for.slow
        "expr" (printf "time() - max by (source) (kpbackup_last_success_timestamp_seconds{%s,kind=\"full\"}) > %v" $s (int64 $rules.fullMaxAgeSeconds))
        "summary" (printf "%s: the newest full backup is old" $of)
        "description" "It is {{ $value | humanizeDuration }} old. Recovery still works, but has more and more of the archive to replay.")
      (dict "name" "KpbackupChainBroken" "severity" "critical" "for" $for.urgent
        "expr" (printf "min by (source) (kpbackup_chain_intact{%s}) == 0 and on (source) max by (source) (kpbackup_backup_sets{%s}) > 0" $s $s)
        "summary" (printf "%s: the archive has a gap, or damaged manifests" $of)
        "description" "There are moments that cannot be restored: kpbackup list shows which.")
      (dict "name" "KpbackupArchiveStalled" "severity" "critical" "for" $for.urgent
        "expr" (printf "max by (source) (kpbackup_archive_stalled_seconds{%s}) > %v" $s (int64 $rules.stalledSeconds))
        "summary" (printf "%s: the archive stands still" $of)
        "description" "For {{ $value | humanizeDuration }} the store has taken nothing of what the source writes.")
      (dict "name" "KpbackupRtoExceeded" "severity" "warning" "for" $for.slow
        "expr" (printf "max by (source, kind) (kpbackup_measured_rto_seconds{%s}) > on (source) group_left () source:kpbackup_objective_rto_seconds:min" $s)
        "summary" (printf "%s: a recovery took longer than promised" $of)
        "description" "The newest one ({{ $labels.kind }}) took {{ $value | humanizeDuration }}.")
      (dict "name" "KpbackupForecastRtoExceeded" "severity" "warning" "for" $for.slow
        "expr" (printf "max by (source) (kpbackup_forecast_rto_seconds{%s}) > source:kpbackup_objective_rto_seconds:min unless on (source) source:kpbackup_rto_kept:bool == 0" $s)
        "summary" (printf "%s: a recovery is going to take longer than promised" $of)
        "description" "At the growth of its backup sets it will take {{ $value | humanizeDuration }} in a month: kpbackup forecast says from when on.")
    ) }}
    {{- if not (has .name $without) }}
    {{- include "kpbackup.alert" (set . "rules" $rules) | nindent 4 }}
    {{- end }}
    {{- end }}
- name: {{ $full }}.proof
  rules:
    {{- range (list
      (dict "name" "KpbackupCheckFailed" "severity" "critical" "for" $for.slow
        "expr" (printf "min by (source) (kpbackup_check_last_passed{%s}) == 0" $s)
        "summary" (printf "%s: the last check failed" $of)
        "description" "Something stored is missing or damaged: kpbackup check names it and says what it costs.")
      (dict "name" "KpbackupCheckTooOld" "severity" "warning" "for" $for.slow
        "expr" (printf "time() - max by (source) (kpbackup_last_success_timestamp_seconds{%s,kind=\"check\"}) > on (source) max by (source) (kpbackup_check_max_age_seconds{%s}) unless on (source) min by (source) (kpbackup_check_last_passed{%s}) == 0" $s $s $s)
        "summary" (printf "%s: no check succeeded for long" $of)
        "description" "The last one that did was {{ $value | humanizeDuration }} ago.")
      (dict "name" "KpbackupCheckMissing" "severity" "warning" "for" $for.slow
        "expr" (printf "count by (source) (kpbackup_build_info{%s}) unless on (source) kpbackup_check_last_end_timestamp_seconds{%s} and on (source) max by (source) (kpbackup_backup_sets{%s}) > 7" $s $s $s)
        "summary" (printf "%s: nothing was ever checked" $of)
        "description" "There are backups of a week, and no check has left its result in the repository.")
      (dict "name" "KpbackupCopyBehind" "severity" "warning" "for" $for.slow
        "expr" (printf "time() - max by (source, repository) (kpbackup_copy_recovery_point_timestamp_seconds{%s}) > on (source, repository) max by (source, repository) (kpbackup_copy_max_age_seconds{%s}) unless on (source, repository) max by (source, repository) (kpbackup_copy_up{%s}) == 0" $s $s $s)
        "summary" (printf "%s: %s" $of "the copy {{ $labels.repository }} is behind")
        "description" "What it holds ends {{ $value | humanizeDuration }} ago, longer than copies.max_age allows.")
      (dict "name" "KpbackupCopyUnreachable" "severity" "warning" "for" $for.slow
        "expr" (printf "max by (source, repository) (kpbackup_copy_up{%s}) == 0" $s)
        "summary" (printf "%s: %s" $of "the copy {{ $labels.repository }} cannot be read")
        "description" "Nothing is carried over to it, and whether it could be restored from is not known.")
      (dict "name" "KpbackupDrillFailed" "severity" "critical" "for" $for.slow
        "expr" (printf "min by (source) (kpbackup_drill_last_passed{%s}) == 0" $s)
        "summary" (printf "%s: the last drill failed" $of)
        "description" "What is stored could not be restored and proven the last time it was tried: kpbackup recoveries says why.")
      (dict "name" "KpbackupDrillTooOld" "severity" "warning" "for" $for.slow
        "expr" (printf "time() - max by (source) (kpbackup_drill_last_success_timestamp_seconds{%s}) > on (source) max by (source) (kpbackup_drill_max_age_seconds{%s})" $s $s)
        "summary" (printf "%s: no drill succeeded for long" $of)
        "description" "The last proof that the backups can be restored is {{ $value | humanizeDuration }} old.")
      (dict "name" "KpbackupDrillMissing" "severity" "warning" "for" $for.slow
        "expr" (printf "count by (source) (kpbackup_build_info{%s}) unless on (source) kpbackup_drill_last_success_timestamp_seconds{%s} and on (source) max by (source) (kpbackup_backup_sets{%s}) > 7" $s $s $s)
        "summary" (printf "%s: no drill ever succeeded" $of)
        "description" "There are backups of a week, and nothing proves that they can be restored.")
      (dict "name" "KpbackupKeyUnproven" "severity" "warning" "for" $for.slow
        "expr" (printf "time() - min by (source, recipient) (kpbackup_canary_last_success_timestamp_seconds{%s}) > %v" $s (int64 $rules.canaryMaxAgeSeconds))
        "summary" (printf "%s: a key has not opened anything for long" $of)
        "description" "The last proof that the key of {{ $labels.recipient }} opens what is sealed to it is {{ $value | humanizeDuration }} old.")
      (dict "name" "KpbackupStoreRegressed" "severity" "critical" "for" $for.urgent
        "expr" (printf "max by (source) (kpbackup_head_regressed{%s}) == 1" $s)
        "summary" (printf "%s: the store shows less than it did" $of)
        "description" "Newest entries of the repository were removed, or the store serves an older state.")
    ) }}
    {{- if not (has .name $without) }}
    {{- include "kpbackup.alert" (set . "rules" $rules) | nindent 4 }}
    {{- end }}
    {{- end }}
- name: {{ $full }}.service
  rules:
    {{- range (list
      (dict "name" "KpbackupDown" "severity" "critical" "for" $for.soon
        "expr" (printf "absent(up{%s} == 1)" $s)
        "summary" "kpbackup is down"
        "description" "No kpbackup of this release answers: nothing is known of its backups.")
      (dict "name" "KpbackupSourceUnreachable" "severity" "critical" "for" $for.soon
        "expr" (printf "max by (source) (kpbackup_source_up{%s}) == 0" $s)
        "summary" (printf "%s: the source does not answer" $of)
        "description" "No backup can be made, and its users may be without a database.")
      (dict "name" "KpbackupStoreUnreachable" "severity" "critical" "for" $for.soon
        "expr" (printf "max by (source) (kpbackup_store_up{%s}) == 0 or (time() - max by (source) (kpbackup_state_timestamp_seconds{%s}) > 600 and on (source) max by (source) (kpbackup_store_up{%s}) == 1)" $s $s $s)
        "summary" (printf "%s: the store does not answer" $of)
        "description" "The repository cannot be read: nothing is stored, and nothing could be restored now.")
      (dict "name" "KpbackupJobFailed" "severity" "warning" "for" $for.soon
        "expr" (printf "min by (source, kind) (kpbackup_job_consecutive_failures{%s}) > 0" $s)
        "summary" (printf "%s: %s" $of "the last {{ $labels.kind }} backup failed")
        "description" "It failed {{ $value }} times in a row; it is tried again. The log of kpbackup says why.")
      (dict "name" "KpbackupLeaseWithoutHolder" "severity" "warning" "for" $for.soon
        "expr" (printf "max by (source) (kpbackup_job_running{%s,kind=\"incremental\"}) == 0 unless on (source) (max by (source) (kpbackup_job_running{%s,kind=\"full\"}) == 1 or max by (source) (kpbackup_source_up{%s}) == 0 or max by (source) (kpbackup_store_up{%s}) == 0 or max by (source, kind) (kpbackup_job_consecutive_failures{%s,kind=\"incremental\"}) > 0)" $s $s $s $s $s)
        "summary" (printf "%s: nobody archives" $of)
        "description" "The archive is to be continuous, and no daemon holds its lease.")
      (dict "name" "KpbackupCertificateExpiresSoon" "severity" "warning" "for" $for.slow
        "expr" (printf "min by (source, endpoint) (kpbackup_certificate_expiry_timestamp_seconds{%s}) - time() < %v" $s (mul 86400 (int64 $rules.certificateDays)))
        "summary" (printf "%s: a certificate expires soon" $of)
        "description" "That of {{ $labels.endpoint }} holds for another {{ $value | humanizeDuration }}.")
      (dict "name" "KpbackupClockSkew" "severity" "warning" "for" $for.slow
        "expr" (printf "abs(max by (source) (kpbackup_source_clock_skew_seconds{%s})) > %v" $s (int64 $rules.clockSkewSeconds))
        "summary" (printf "%s: clocks disagree" $of)
        "description" "The source’s clock and that of kpbackup differ by {{ $value | humanizeDuration }}; recovery points are told by the source’s.")
      (dict "name" "KpbackupLatencyHigh" "severity" "warning" "for" $for.soon
        "expr" (printf "histogram_quantile(0.99, sum by (source, le) (rate(kpbackup_http_request_duration_seconds_bucket{%s}[5m]))) > 1" $s)
        "summary" (printf "%s: kpbackup answers slowly" $of)
        "description" "One request in a hundred takes longer than {{ $value | humanizeDuration }}.")
      (dict "name" "KpbackupNotificationsLost" "severity" "warning" "for" $for.urgent
        "expr" (printf "min by (source, channel) (kpbackup_notification_delivered{%s}) == 0" $s)
        "summary" (printf "%s: a notification did not arrive" $of)
        "description" "{{ $labels.channel }} did not take the last message after all attempts; what it would have said is in the log.")
    ) }}
    {{- if not (has .name $without) }}
    {{- include "kpbackup.alert" (set . "rules" $rules) | nindent 4 }}
    {{- end }}
    {{- end }}
{{- if $rules.kubernetes }}
- name: {{ $full }}.kubernetes
  rules:
    {{- range (list
      (dict "name" "KpbackupReplicasLow" "severity" "warning" "for" $for.slow
        "expr" (printf "kube_deployment_status_replicas_available{namespace=%q,deployment=%q} < on (namespace, deployment) kube_deployment_spec_replicas{namespace=%q,deployment=%q}" $namespace $full $namespace $full)
        "summary" "fewer kpbackup pods than wanted"
        "description" "{{ $value }} are available; when the last one goes, nobody archives.")
      (dict "name" "KpbackupJobOverdue" "severity" "warning" "for" $for.slow
        "expr" (include "kpbackup.lastRunFailed" (dict "namespace" $namespace "cronjob" (printf "cronjob=~\"%s-(full|incremental|prune)\"" $full)))
        "summary" "{{ $labels.cronjob }} did not succeed"
        "description" "Its last run did not end well. kubectl logs of its newest Job says why.")
      (dict "name" "KpbackupCpuHigh" "severity" "warning" "for" $for.slow
        "expr" (printf "max(sum by (pod) (rate(container_cpu_usage_seconds_total{namespace=%q,pod=~\"%s-.+\",container=\"kpbackup\"}[5m])) / on (pod) sum by (pod) (kube_pod_container_resource_limits{namespace=%q,pod=~\"%s-.+\",container=\"kpbackup\",resource=\"cpu\"})) > 0.8 unless on () max(kpbackup_job_running{%s,kind=\"full\"}) == 1" $namespace $full $namespace $full $s)
        "summary" "kpbackup uses nearly all of its processor limit"
        "description" "It uses {{ $value | humanizePercentage }} although no full backup runs.")
      (dict "name" "KpbackupMemoryHigh" "severity" "warning" "for" $for.slow
        "expr" (printf "max by (pod) (container_memory_working_set_bytes{namespace=%q,pod=~\"%s-.+\",container=\"kpbackup\"}) / on (pod) max by (pod) (kube_pod_container_resource_limits{namespace=%q,pod=~\"%s-.+\",container=\"kpbackup\",resource=\"memory\"}) > 0.85" $namespace $full $namespace $full)
        "summary" "kpbackup uses nearly all of its memory limit"
        "description" "{{ $labels.pod }} uses {{ $value | humanizePercentage }}; at 100 % it is killed.")
    ) }}
    {{- if not (has .name $without) }}
    {{- include "kpbackup.alert" (set . "rules" $rules) | nindent 4 }}
    {{- end }}
    {{- end }}
{{- end }}
{{- if $rules.kubepolaris.enabled }}
{{- $app := $rules.kubepolaris }}
{{- $backend := printf "%s-backend" $app.release }}
- name: {{ $full }}.kubepolaris
  rules:
    {{- range (list
      (dict "name" "KubePolarisDown" "severity" "critical" "for" "5m"
        "expr" (printf "max(kube_deployment_status_replicas_available{namespace=%q,deployment=%q}) == 0 or absent(kube_deployment_status_replicas_available{namespace=%q,deployment=%q})" $app.namespace $backend $app.namespace $backend)
        "summary" "KubePolaris is down"
        "description" "No backend is available.")
      (dict "name" "KubePolarisHighLatency" "severity" "warning" "for" "5m"
        "expr" (printf "histogram_quantile(0.99, sum by (le) (rate(nginx_ingress_controller_request_duration_seconds_bucket{exported_namespace=%q,exported_service=%q}[5m]))) > 1" $app.namespace $backend)
        "summary" "KubePolaris answers slowly"
        "description" "One API request in a hundred takes longer than {{ $value | humanizeDuration }}.")
      (dict "name" "KubePolarisReplicasLow" "severity" "warning" "for" "5m"
        "expr" (printf "kube_deployment_status_replicas_available{namespace=%q,deployment=%q} < %d > 0" $app.namespace $backend (int $app.replicas))
        "summary" "KubePolaris has few replicas"
        "description" "{{ $value }} backends are available.")
    ) }}
    {{- if not (has .name $without) }}
    {{- include "kpbackup.alert" (set . "rules" $rules) | nindent 4 }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end -}}
