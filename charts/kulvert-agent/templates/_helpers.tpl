{{- define "kulvert-agent.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kulvert-agent.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* By "kulvert" the agent knows what it may take away (roles.uninstall). Helm writes its own name over it. */}}
{{- define "kulvert-agent.labels" -}}
{{ include "kulvert-agent.selector" . }}
app.kubernetes.io/managed-by: {{ ternary "kulvert" .Release.Service .Values.roles.uninstall }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kulvert
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kulvert-agent.serviceAccount" -}}
{{- default (include "kulvert-agent.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "kulvert-agent.stateSecret" -}}
{{- default (printf "%s-state" (include "kulvert-agent.fullname" .)) .Values.state.secretName -}}
{{- end -}}

{{- define "kulvert-agent.joinSecret" -}}
{{- if .Values.joinToken.existingSecret -}}
{{- .Values.joinToken.existingSecret -}}
{{- else if .Values.joinToken.value -}}
{{- printf "%s-join" (include "kulvert-agent.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "kulvert-agent.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "kulvert-agent.impersonation" -}}
{{- $mode := .Values.impersonation.mode -}}
{{- if eq $mode "auto" -}}
{{- $mode = ternary "constrained" "listed" (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $named := or .Values.impersonation.users .Values.impersonation.groups -}}
{{- if and (eq $mode "listed") (not $named) -}}
{{- fail (printf "Kubernetes %s has no constrained impersonation: name in impersonation.users and impersonation.groups whom the platform may be, or set impersonation.mode=unrestricted, which is cluster-admin for whoever controls the agent (docs/threat-model.md)" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $mode "unrestricted") $named -}}
{{- fail "impersonation.mode=unrestricted ignores impersonation.users and impersonation.groups: take the mode listed, or leave the lists out" -}}
{{- end -}}
{{- $mode -}}
{{- end -}}

{{- define "kulvert-agent.pem" -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" .Values.serverCA.pem) -}}
{{- fail "serverCA.pem is no PEM certificate: it begins with -----BEGIN CERTIFICATE-----" -}}
{{- end -}}
{{- .Values.serverCA.pem -}}
{{- end -}}

{{/* The agent's settings: the chart's own, the owner's policy, and what config adds. */}}
{{- define "kulvert-agent.settings" -}}
{{- $own := dict "servers" .Values.servers "cluster" .Values.cluster -}}
{{- if include "kulvert-agent.joinSecret" . -}}
{{- $_ := set $own "joinTokenFile" (printf "/etc/kulvert-join/%s" .Values.joinToken.key) -}}
{{- end -}}
{{- $_ := set $own "stateDir" "/var/lib/kulvert-agent/own" -}}
{{- $_ := set $own "stateSecret" (include "kulvert-agent.stateSecret" .) -}}
{{- if .Values.serverCA.pem -}}
{{- $_ := set $own "caFile" "/etc/kulvert/ca.crt" -}}
{{- else if or .Values.serverCA.existingConfigMap .Values.serverCA.existingSecret -}}
{{- $_ := set $own "caFile" (printf "/etc/kulvert-ca/%s" .Values.serverCA.key) -}}
{{- end -}}
{{- if ne (int .Values.drainSeconds) 25 -}}
{{- $_ := set $own "drain" (int .Values.drainSeconds) -}}
{{- end -}}
{{- if .Values.roles.serviceAccounts -}}
{{- $_ := set $own "managedServiceAccounts" true -}}
{{- end -}}
{{- range $key := list "servers" "cluster" "joinToken" "joinTokenFile" "stateDir" "stateSecret" "caFile" "drain" "managedServiceAccounts" -}}
{{- if hasKey $.Values.config $key -}}
{{- fail (printf "config.%s is set by the chart itself: use the value that is meant for it (README.md)" $key) -}}
{{- end -}}
{{- end -}}
{{- toYaml (merge $own .Values.policy .Values.config) -}}
{{- end -}}

{{/* Ports that the way out needs: of the servers (443 where none is told) and of the proxy. */}}
{{- define "kulvert-agent.ports" -}}
{{- $ports := list -}}
{{- range .Values.servers -}}
{{- $port := regexReplaceAll "^https://(\\[[^\\]]*\\]|[^:/]+)(:([0-9]+))?/?$" . "${3}" -}}
{{- $ports = append $ports (default "443" $port | int) -}}
{{- end -}}
{{- with .Values.proxy.https -}}
{{- $port := regexReplaceAll "^[a-z]+://(.*@)?(\\[[^\\]]*\\]|[^:/@]+)(:([0-9]+))?/?$" . "${4}" -}}
{{- $ports = append $ports (default (ternary "443" "80" (hasPrefix "https" .)) $port | int) -}}
{{- end -}}
{{- range .Values.networkPolicy.apiServerPorts -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- range $ports | uniq -}}
- {protocol: TCP, port: {{ . }}}
{{ end -}}
{{- end -}}
