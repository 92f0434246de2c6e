{{- define "kube-stepup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "kube-stepup.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "kube-stepup.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. Call with the root context. */}}
{{- define "kube-stepup.labels" -}}
app.kubernetes.io/name: {{ include "kube-stepup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kube-stepup
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels that select the pods of one server. Call with (dict "root" $ "server" "admission"). */}}
{{- define "kube-stepup.selector" -}}
app.kubernetes.io/name: {{ include "kube-stepup.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .server }}
{{- end -}}

{{- define "kube-stepup.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Our three service accounts, as "namespace/name". */}}
{{- define "kube-stepup.serviceAccounts" -}}
{{- $fullname := include "kube-stepup.fullname" . -}}
{{- range $server := list "admission" "controller" "elevation" }}
- {{ printf "%s/%s-%s" $.Release.Namespace $fullname $server }}
{{- end }}
{{- end -}}

{{/* The settings file of all three servers: webhook/settings.py is its schema. */}}
{{- define "kube-stepup.settings" -}}
{{- $fullname := include "kube-stepup.fullname" . -}}
audience: {{ required "clusterName is required: a name of this cluster that is different in each of yours" .Values.clusterName | quote }}
issuer: {{ .Values.issuer | quote }}
namespace: {{ .Release.Namespace }}
logLevel: {{ .Values.logLevel }}
assertionMaxLifetimeSeconds: {{ .Values.assertionMaxLifetimeSeconds | int64 }}
sessionExtraKey: {{ .Values.sessionExtraKey | quote }}
metricsPort: {{ .Values.metrics.enabled | ternary .Values.metrics.port 0 | int64 }}
tlsCertFile: /etc/kube-stepup/tls/tls.crt
tlsKeyFile: /etc/kube-stepup/tls/tls.key
controllers:
  serviceAccounts:
    {{- range .Files.Lines "files/kube-system-controllers.txt" }}
    {{- if . }}
    - kube-system/{{ . }}
    {{- end }}
    {{- end }}
    {{- with .Values.controllers.extraServiceAccounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  certificateUsers: {{ toJson .Values.controllers.certificateUsers }}
  nodesByCertificate: {{ .Values.controllers.nodesByCertificate }}
breakGlass:
  users: {{ toJson .Values.breakGlass.users }}
  groups: {{ toJson .Values.breakGlass.groups }}
impersonatingProxies:
  credentialExtraKeys: {{ toJson .Values.impersonatingProxies.credentialExtraKeys }}
admission:
  port: 8443
  pathSecretFile: /etc/kube-stepup/path/path
  reportSeconds: {{ .Values.reports.storeEverySeconds | int64 }}
elevation:
  port: 8444
  enrolmentTrustOnFirstUse: {{ .Values.elevation.enrolmentTrustOnFirstUse }}
  encryptionKeySecret: {{ $fullname }}-encryption-key
  signingKeysSecret: {{ $fullname }}-signing-keys
  signingAlgorithm: {{ .Values.elevation.signingAlgorithm }}
  signingKeyRotationSeconds: {{ .Values.elevation.signingKeyRotationSeconds | int64 }}
  pendingLifetimeSeconds: {{ .Values.elevation.pendingLifetimeSeconds | int64 }}
  maxPendingPerUser: {{ .Values.elevation.maxPendingPerUser | int64 }}
  keepRecordSeconds: {{ .Values.elevation.keepRecordSeconds | int64 }}
  workloadIssuers: {{ toJson .Values.elevation.workloadIssuers }}
  workloadMaxLifetimeSeconds: {{ .Values.elevation.workloadMaxLifetimeSeconds | int64 }}
  approvals:
    lifetimeSeconds: {{ .Values.approvals.lifetimeSeconds | int64 }}
    minFactorAgeSeconds: {{ .Values.approvals.minFactorAgeSeconds | int64 }}
    personKey: {{ .Values.approvals.personKey | quote }}
  assurance: {{ toJson .Values.elevation.assurance }}
  totp:
    issuer: {{ .Values.elevation.totp.issuer | quote }}
  webauthn: {{ toJson .Values.elevation.webauthn }}
  page:
    port: 8446
    origin: {{ .Values.elevation.page.origin | quote }}
    rpId: {{ .Values.elevation.page.rpId | quote }}
    localhost: {{ .Values.elevation.page.localhost }}
  requestHeader:
    caFingerprints: {{ toJson .Values.elevation.requestHeader.caFingerprints }}
notices:
  urlsFile: {{ ternary "/etc/kube-stepup/notices/urls" "" (ne .Values.notices.urlsSecret "") | quote }}
  maxPerMinute: {{ .Values.notices.maxPerMinute | int64 }}
controller:
  healthPort: 8081
  keepReportDays: {{ .Values.reports.keepDays | int64 }}
  leaseName: {{ $fullname }}-controller
  manageCertificates: {{ eq .Values.certificates.mode "self" }}
  caSecret: {{ $fullname }}-ca
  caLifetimeSeconds: {{ .Values.certificates.caLifetimeSeconds | int64 }}
  admissionCertificateSecret: {{ $fullname }}-admission-cert
  elevationCertificateSecret: {{ $fullname }}-elevation-cert
  servingCertificateLifetimeSeconds: {{ .Values.certificates.lifetimeSeconds | int64 }}
  clusterDomain: {{ .Values.certificates.clusterDomain }}
  admissionService: {{ $fullname }}-admission
  elevationService: {{ $fullname }}-elevation
  {{- if .Values.elevation.page.origin }}
  servingDnsNames: [{{ $fullname }}-page.{{ .Release.Namespace }}.svc]
  {{- end }}
  webhookConfiguration: {{ $fullname }}
  ownerClusterRole: {{ $fullname }}-controller
  pathSecret: {{ $fullname }}-webhook-path
  watchful: {{ .Values.webhook.watchful }}
  narrowDelaySeconds: {{ .Values.webhook.narrowDelaySeconds | int64 }}
  maxGuardedNamespaces: {{ .Values.webhook.maxGuardedNamespaces | int64 }}
  excludedNamespaces:
    {{- $excluded := .Values.webhook.excludedNamespaces }}
    {{- if .Values.webhook.excludeOwnNamespace }}
    {{- $excluded = append $excluded .Release.Namespace | uniq }}
    {{- end }}
    {{- if $excluded }}
    {{- toYaml $excluded | nindent 4 }}
    {{- else }} []
    {{- end }}
  ownServiceAccounts:
    {{- include "kube-stepup.serviceAccounts" . | trim | nindent 4 }}
{{- end -}}

{{/* Fields of a pod that all servers share. Call with (dict "root" $ "server" "admission"). */}}
{{- define "kube-stepup.pod" -}}
{{- $values := index .root.Values .server -}}
serviceAccountName: {{ include "kube-stepup.fullname" .root }}-{{ .server }}
automountServiceAccountToken: true
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "kube-stepup.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Fields of a container that all servers share. Call with (dict "root" $ "server" "admission"). */}}
{{- define "kube-stepup.container" -}}
name: {{ .server }}
image: {{ include "kube-stepup.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .server }}, --config, /etc/kube-stepup/config/config.yaml]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml (index .root.Values .server).resources | nindent 2 }}
lifecycle:
  preStop:
    # Endpoints and the API server's connections need a moment to notice.
    sleep:
      seconds: 5
{{- end -}}

{{/* Probes of a server. Call with (dict "scheme" "HTTPS" "port" "https"). */}}
{{- define "kube-stepup.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}
