{{- define "kulvert.fullname" -}}
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

{{- define "kulvert.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kulvert.labels" -}}
{{ include "kulvert.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kulvert
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kulvert.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kulvert.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kulvert.subjects" -}}
- kind: ServiceAccount
  name: {{ include "kulvert.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "kulvert.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the server's certificate; empty: it has a CA of its own. */}}
{{- define "kulvert.tlsSecret" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "kulvert.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* What clients and agents dial: names within the cluster, and those that were told. One a line. */}}
{{- define "kulvert.names" -}}
{{- range list (include "kulvert.fullname" .) (printf "%s-agents" (include "kulvert.fullname" .)) -}}
{{ printf "%s.%s.svc" . $.Release.Namespace }}
{{ end -}}
{{- with .Values.domain -}}
{{ printf "*.%s" . }}
{{ end -}}
{{- range .Values.names -}}
{{ . }}
{{ end -}}
{{- end -}}

{{/* Whether the CRD of ManagedCluster is made here: auto never touches one that is another's. */}}
{{- define "kulvert.managedClusterCRD" -}}
{{- $wanted := toString .Values.hub.managedClusterCRD -}}
{{- if eq $wanted "true" -}}
true
{{- else if eq $wanted "auto" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "managedclusters.cluster.open-cluster-management.io" -}}
{{- $annotations := default dict (dig "metadata" "annotations" dict (default dict $found)) -}}
{{- $ours := and (eq (get $annotations "meta.helm.sh/release-name") .Release.Name) (eq (get $annotations "meta.helm.sh/release-namespace") .Release.Namespace) -}}
{{- if or (not $found) $ours -}}
true
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values that contradict each other, told before anything is made. */}}
{{- define "kulvert.check" -}}
{{- $single := eq .Values.mode "single" -}}
{{- if and (not $single) (not .Values.hub.enabled) -}}
{{- fail (printf "mode=%s keeps its state in the hub: set hub.enabled=true, or mode=single" .Values.mode) -}}
{{- end -}}
{{- if and .Values.state.persistence.enabled (not $single) -}}
{{- fail (printf "state.persistence is for mode=single: in mode=%s the state is in the hub" .Values.mode) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (ne .Values.mode "sharded") -}}
{{- fail (printf "autoscaling is for mode=sharded: in mode=%s one replica has all agents" .Values.mode) -}}
{{- end -}}
{{- if and (not .Values.hub.enabled) (or .Values.autoJoin.enabled .Values.managedServiceAccounts.secretNamespaces .Values.hub.tokenReview .Values.hub.accessReview) -}}
{{- fail "autoJoin, managedServiceAccounts.secretNamespaces, hub.tokenReview and hub.accessReview need hub.enabled=true" -}}
{{- end -}}
{{- if and .Values.autoJoin.enabled (not .Values.autoJoin.agentsAddress) -}}
{{- fail "autoJoin.enabled needs autoJoin.agentsAddress: where agents reach this server, https://HOST:8444" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "tls.existingSecret and tls.certManager.enabled exclude each other: keep one" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.enabled needs tls.certManager.issuerRef.name: the Issuer or ClusterIssuer that signs" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.serviceMonitor.tokenSecret.name) -}}
{{- fail "serviceMonitor.enabled needs serviceMonitor.tokenSecret.name: /metrics is for members of adminGroups" -}}
{{- end -}}
{{- range $key, $value := dict "listen" "service" "agentsListen" "agentsService" "stateDir" "state" "names" "names" "domain" "domain" "adminGroups" "adminGroups" "grants" "grants" "autoJoin" "autoJoin" -}}
{{- if hasKey $.Values.config $key -}}
{{- fail (printf "config.%s is set by the chart itself: use the value %s" $key $value) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (default dict .Values.config.replicas) "mode" -}}
{{- fail "config.replicas.mode is set by the chart itself: use the value mode" -}}
{{- end -}}
{{- end -}}

{{/* The server's settings: the chart's own, over which config is laid. */}}
{{- define "kulvert.settings" -}}
{{- include "kulvert.check" . -}}
{{- $own := dict
  "listen" (list "0.0.0.0:8443")
  "agentsListen" (list "0.0.0.0:8444")
  "names" (concat (list "localhost" "127.0.0.1") (include "kulvert.names" . | trim | splitList "\n"))
  "stateDir" "/var/lib/kulvert/own"
  "grants" "/etc/kulvert/access/grants.yaml"
  "adminGroups" .Values.adminGroups
  "metricsGroup" (first .Values.adminGroups)
  "audit" (dict "logPath" (list "-"))
  "timeouts" (dict "drain" .Values.drainSeconds "lameduck" 2)
-}}
{{- with .Values.domain -}}
{{- $_ := set $own "domain" . -}}
{{- end -}}
{{- if .Values.authenticationConfiguration -}}
{{- $_ := set $own "authentication" (dict "config" "/etc/kulvert/access/authentication.yaml") -}}
{{- end -}}
{{- if include "kulvert.tlsSecret" . -}}
{{- $_ := set $own "tls" (dict "certificate" "/etc/kulvert/tls/tls.crt" "key" "/etc/kulvert/tls/tls.key") -}}
{{- end -}}
{{- if .Values.hub.enabled -}}
{{- $hub := dict "inCluster" true -}}
{{- range $key := list "clusters" "grants" "tokenReview" "accessReview" -}}
{{- if index $.Values.hub $key -}}
{{- $_ := set $hub $key true -}}
{{- end -}}
{{- end -}}
{{- $_ := set $own "hub" $hub -}}
{{- end -}}
{{- if ne .Values.mode "single" -}}
{{- $replicas := dict "mode" .Values.mode "namespace" .Release.Namespace "peersListen" "0.0.0.0:8445" -}}
{{- if eq .Values.mode "standby" -}}
{{- $_ := set $replicas "labelPod" true -}}
{{- end -}}
{{- $_ := set $own "replicas" $replicas -}}
{{- end -}}
{{- if .Values.autoJoin.enabled -}}
{{- $join := dict "enabled" true "agentsAddress" .Values.autoJoin.agentsAddress "namespaces" .Values.autoJoin.namespaces -}}
{{- with .Values.autoJoin.image -}}
{{- $_ := set $join "image" . -}}
{{- end -}}
{{- $_ := set $own "autoJoin" $join -}}
{{- end -}}
{{- if .Values.managedServiceAccounts.enabled -}}
{{- $accounts := dict "enabled" true -}}
{{- with .Values.managedServiceAccounts.secretNamespaces -}}
{{- $_ := set $accounts "secretNamespaces" . -}}
{{- end -}}
{{- $_ := set $own "serviceAccounts" $accounts -}}
{{- end -}}
{{- toYaml (mergeOverwrite $own .Values.config) -}}
{{- end -}}
