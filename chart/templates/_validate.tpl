{{/* Values that contradict each other stop here, each with a sentence that says what to do. */}}
{{- define "kpbackup.validate" -}}
{{- $values := .Values -}}
{{- $config := $values.config -}}
{{- $source := default dict $config.source -}}
{{- $repository := default dict $config.repository -}}
{{- $encryption := default dict $config.encryption -}}
{{- $target := (default dict (default dict $config.recovery).target) -}}
{{- $archive := default dict $config.archive -}}
{{- if hasKey $values "leases" -}}
{{- fail "kpbackup: leases cannot be switched off: they are what keeps a second daemon, or a daemon and a CronJob, from the same work. Remove the value `leases`." -}}
{{- end -}}
{{- if not (and $source.host $source.user) -}}
{{- fail "kpbackup: config.source.host and config.source.user must name the server to back up and the account that reads it." -}}
{{- end -}}
{{- if not $repository.url -}}
{{- fail "kpbackup: config.repository.url must say where backups are kept, such as s3://bucket/prefix." -}}
{{- end -}}
{{- if not (or $encryption.recipients $encryption.recipients_file) -}}
{{- fail "kpbackup: config.encryption.recipients is empty, and backups are never stored open: make two identities with `age-keygen`, keep them away from this cluster, and put their public keys (age1...) here." -}}
{{- end -}}
{{- if or (hasKey $source "password") (hasKey $target "password") -}}
{{- fail "kpbackup: a password must not be among the values, which everyone who may read the release can see: put it into a Secret and name that in secrets.source (or drill.secrets.target)." -}}
{{- end -}}
{{- if $encryption.identity_file -}}
{{- fail "kpbackup: config.encryption.identity_file would give the private identity to what makes backups. Name its Secret in drill.secrets.identity: only the drill mounts it." -}}
{{- end -}}
{{- if and (eq $values.mode "cronjob") $archive.continuous -}}
{{- fail "kpbackup: mode cronjob cannot archive continuously, since a CronJob ends: set mode: daemon, or leave config.archive.continuous out." -}}
{{- end -}}
{{- if and (hasPrefix "file://" $repository.url) (not $values.extraVolumeMounts) -}}
{{- fail (printf "kpbackup: the repository %s would be lost with the pod: mount a shared volume there with extraVolumes and extraVolumeMounts, or use s3://." $repository.url) -}}
{{- end -}}
{{- if eq $values.mode "sidecar" -}}
{{- if not $values.secrets.signing.name -}}
{{- fail "kpbackup: mode sidecar needs secrets.signing.name: before the database is there, nothing can make the key. Make one with `minisign -G -W -s signing.key -p signing.pub` and create the Secret from both files." -}}
{{- end -}}
{{- if and (include "kpbackup.fullAsksApi" .) $values.rbac.create -}}
{{- fail "kpbackup: mode sidecar runs with the account of the database's pod, which this chart cannot give rights: for config.application and config.notify.kubernetes_events use mode daemon, or set rbac.create: false and bind that account to a Role of your own." -}}
{{- end -}}
{{- if $values.preUpgradeBackup.enabled -}}
{{- fail "kpbackup: preUpgradeBackup is a Job of its own and cannot reach a database that only its sidecar reaches: leave it off in mode sidecar." -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.mode "cronjob") (not $values.exporter.enabled) (or $values.metrics.serviceMonitor.enabled $values.metrics.prometheusRule.enabled) -}}
{{- fail "kpbackup: metrics are switched on but nothing serves them: in mode cronjob set exporter.enabled: true." -}}
{{- end -}}
{{- if $values.prune.enabled -}}
{{- $own := $values.prune.secrets.store.name -}}
{{- if and $own (eq $own $values.secrets.store.name) -}}
{{- fail (printf "kpbackup: prune uses the daemon's own Secret %s: then whoever breaks into the daemon can delete backups. Give prune.secrets.store credentials of its own, and the daemon's none that delete." $own) -}}
{{- end -}}
{{- if and $values.secrets.store.name (not $own) (not $values.prune.serviceAccount.annotations) -}}
{{- fail "kpbackup: prune has no credentials that may delete: name their Secret in prune.secrets.store, or a cloud identity in prune.serviceAccount.annotations." -}}
{{- end -}}
{{- if and $values.prune.serviceAccount.annotations (eq (toJson $values.prune.serviceAccount.annotations) (toJson $values.serviceAccount.annotations)) -}}
{{- fail "kpbackup: prune.serviceAccount has the daemon's cloud identity: then the daemon can delete backups. Give prune one of its own." -}}
{{- end -}}
{{- end -}}
{{- if $values.drill.enabled -}}
{{- $identity := $values.drill.secrets.identity.name -}}
{{- if not $identity -}}
{{- fail "kpbackup: a drill without the private identity cannot open a backup: name its Secret in drill.secrets.identity, or set drill.enabled: false." -}}
{{- end -}}
{{- if has $identity (list $values.secrets.source.name $values.secrets.store.name (include "kpbackup.signingSecret" .) $values.prune.secrets.store.name) -}}
{{- fail (printf "kpbackup: drill.secrets.identity is the Secret %s, which another workload mounts: keep the private identity in a Secret of its own." $identity) -}}
{{- end -}}
{{- if not (or (and $target.host $target.user) (include "kpbackup.drillNamespace" .)) -}}
{{- fail "kpbackup: a drill needs a scratch server to restore into: set config.recovery.target.host and .user, or config.drill.kubernetes." -}}
{{- end -}}
{{- if and (include "kpbackup.drillNamespace" .) (has (include "kpbackup.drillNamespace" .) (list .Release.Namespace (include "kpbackup.application" .))) -}}
{{- fail "kpbackup: config.drill.kubernetes.namespace must be a namespace with nothing else in it, neither kpbackup's nor the application's." -}}
{{- end -}}
{{- if and (default dict $values.config.drill).application (not (include "kpbackup.drillNamespace" .)) -}}
{{- fail "kpbackup: config.drill.application is started in the drill's namespace alone: set config.drill.kubernetes." -}}
{{- end -}}
{{- if and (eq $target.host $source.host) (eq (default 3306 $target.port | int) (default 3306 $source.port | int)) -}}
{{- fail (printf "kpbackup: the drill would restore into the source itself (%s): name a scratch server in config.recovery.target." $target.host) -}}
{{- end -}}
{{- end -}}
{{- if and $values.topologySpreadConstraints (not (kindIs "slice" $values.topologySpreadConstraints)) -}}
{{- fail "kpbackup: topologySpreadConstraints must be a list." -}}
{{- end -}}
{{- end -}}
