{{/*
What a role mounts and the settings file it gets. A role is an identity of D4: writer (daemon, sidecar, CronJobs of backups),
exporter, check, prune, drill, init. Only `drill` ever mounts the private identity, only `prune` the credentials that delete.
*/}}

{{- define "kpbackup.secretsDirectory" -}}/var/run/secrets/kpbackup{{- end -}}

{{/* A list of {volume, secret, key, path, setting}: files of Secrets a role needs; `setting` is group.key, or an environment variable. */}}
{{- define "kpbackup.files" -}}
{{- $values := .ctx.Values -}}
{{- $role := .role -}}
{{- $own := dict -}}
{{- if has $role (list "check" "prune" "drill") -}}{{- $own = (get $values $role).secrets -}}{{- end -}}
{{- $files := list -}}
{{- if and (has $role (list "writer" "exporter" "init")) $values.secrets.source.name -}}
{{- $files = append $files (dict "volume" "source" "secret" $values.secrets.source.name "key" $values.secrets.source.key "setting" "source.password_file") -}}
{{- end -}}
{{- $store := $values.secrets.store -}}
{{- if and $own.store $own.store.name -}}{{- $store = $own.store -}}{{- end -}}
{{- if and $store.name (ne $role "prune") -}}
{{- $files = append $files (dict "volume" "store" "secret" $store.name "key" $store.key "setting" "AWS_SHARED_CREDENTIALS_FILE") -}}
{{- else if and (eq $role "prune") $own.store.name -}}
{{- $files = append $files (dict "volume" "store" "secret" $own.store.name "key" $own.store.key "setting" "AWS_SHARED_CREDENTIALS_FILE") -}}
{{- end -}}
{{- $signing := dict "name" (include "kpbackup.signingSecret" .ctx) "key" $values.secrets.signing.key "publicKey" $values.secrets.signing.publicKey -}}
{{- if and $own.signing $own.signing.name -}}{{- $signing = $own.signing -}}{{- end -}}
{{- if or (has $role (list "writer" "prune" "drill")) (and (eq $role "check") (not $own.signing.name)) (and (eq $role "init") $values.secrets.signing.name) -}}
{{- $files = append $files (dict "volume" "signing" "secret" $signing.name "key" $signing.key "setting" "signing.key_file") -}}
{{- else if and (has $role (list "exporter" "check")) (not (include "kpbackup.publicKeys" .ctx)) -}}
{{- $files = append $files (dict "volume" "signing" "secret" $signing.name "key" $signing.publicKey "setting" "signing.public_keys_file") -}}
{{- end -}}
{{- if eq $role "drill" -}}
{{- $files = append $files (dict "volume" "identity" "secret" $own.identity.name "key" $own.identity.key "setting" "encryption.identity_file") -}}
{{- if $own.target.name -}}
{{- $files = append $files (dict "volume" "target" "secret" $own.target.name "key" $own.target.key "setting" "recovery.target.password_file") -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{- define "kpbackup.publicKeys" -}}
{{- $signing := default dict .Values.config.signing -}}
{{- if or $signing.public_keys $signing.public_keys_file -}}yes{{- end -}}
{{- end -}}

{{/* The settings file of a role. What `config` says wins over what the chart derives. */}}
{{- define "kpbackup.settings" -}}
{{- $ctx := .ctx -}}
{{- $role := .role -}}
{{- $derived := dict "service" (dict) -}}
{{- $required := list -}}
{{- range fromYamlArray (include "kpbackup.files" .) -}}
{{- $path := printf "%s/%s/%s" (include "kpbackup.secretsDirectory" $ctx) .volume .key -}}
{{- $required = append $required (dict "path" $path "origin" (printf "Secret %s, key %s," .secret .key)) -}}
{{- if contains "." .setting -}}
{{- $leaf := dict (last (splitList "." .setting)) $path -}}
{{- range (splitList "." .setting | initial | reverse) -}}{{- $leaf = dict . $leaf -}}{{- end -}}
{{- $derived = mergeOverwrite $derived $leaf -}}
{{- end -}}
{{- end -}}
{{- if $required -}}{{- $_ := set $derived.service "required_files" $required -}}{{- end -}}
{{- if has $role (list "writer" "exporter" "init") -}}
{{- $_ := set $derived "archive" (dict "continuous" (eq (include "kpbackup.continuous" $ctx) "yes")) -}}
{{- end -}}
{{- $config := deepCopy $ctx.Values.config -}}
{{- if has $role (list "check" "prune" "drill") -}}{{- $config = omit $config "source" "schedule" "archive" -}}{{- end -}}
{{- if ne $role "drill" -}}{{- $config = omit $config "recovery" "drill" -}}{{- end -}}
{{- $settings := mergeOverwrite $derived $config -}}
{{- range $name, $group := $settings -}}
{{- if and (kindIs "map" $group) (empty $group) -}}{{- $settings = omit $settings $name -}}{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}
