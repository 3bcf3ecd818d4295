{{- define "kernelsearch.name" -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator{{- end }}
{{- /* For what has no namespace: two releases of one name must not meet. */}}
{{- define "kernelsearch.clusterName" -}}{{ .Release.Namespace }}-{{ include "kernelsearch.name" . }}{{- end }}
{{- define "kernelsearch.selector" -}}
app.kubernetes.io/name: kernelsearch
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "kernelsearch.labels" -}}
{{ include "kernelsearch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- /* Of pods that are not the operator: its Service and the uninstall look for the operator's by component. */}}
{{- define "kernelsearch.hookLabels" -}}
app.kubernetes.io/name: kernelsearch
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "kernelsearch.image" -}}
{{- with .root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}
{{- define "kernelsearch.operatorImage" -}}{{ include "kernelsearch.image" (dict "root" . "image" .Values.image) }}{{- end }}

{{- /* The `restricted` Pod Security Standard, and a root that cannot be written. */}}
{{- define "kernelsearch.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "kernelsearch.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}
{{- define "kernelsearch.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* The proxy as environment. The kubelet puts the API server's address in: Services of the cluster are in no domain
     when they are asked by address. Lower case too: tools disagree about which of the two they read. */}}
{{- define "kernelsearch.noProxy" -}}
{{- $without := list "localhost" "127.0.0.1" ".svc" ".cluster.local" "$(KUBERNETES_SERVICE_HOST)" }}
{{- concat $without (compact (splitList "," .Values.proxy.noProxy)) | join "," }}
{{- end }}
{{- define "kernelsearch.proxy" -}}
{{- $without := include "kernelsearch.noProxy" . }}
{{- with .Values.proxy }}
{{- if or .http .https }}
{{- range $name, $value := dict "HTTP_PROXY" .http "HTTPS_PROXY" .https "NO_PROXY" $without }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
- {name: {{ lower $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What kernelsearch.controller.settings reads as the policy. */}}
{{- define "kernelsearch.policy" -}}
{{- $proxy := include "kernelsearch.proxy" . | fromYamlArray }}
{{- $roles := dict "verifier" .Values.verifier }}
{{- range $role := list "runner" "model" }}
{{- $values := get $.Values $role }}
{{- $_ := set $roles $role (merge (dict "env" (concat $proxy $values.env)) $values) }}
{{- end }}
{{- $pods := dict "imagePullPolicy" .Values.image.pullPolicy "imagePullSecrets" .Values.imagePullSecrets }}
{{- $network := .Values.networkPolicy }}
{{- if $proxy }}
{{- $network = merge (dict "proxy" (merge (dict "noProxy" (include "kernelsearch.noProxy" .)) .Values.proxy)) $network }}
{{- end }}
{{- toYaml (merge $pods $roles (dict "networkPolicy" $network) .Values.policy) }}
{{- end }}
{{- define "kernelsearch.configuration" -}}
presets.yaml: |
  {{- toYaml .Values.presets | nindent 2 }}
policy.yaml: |
  {{- include "kernelsearch.policy" . | nindent 2 }}
{{- end }}

{{- /* Where `helm test` searches. */}}
{{- define "kernelsearch.smokeNamespace" -}}
{{- if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) }}{{ .Release.Namespace }}
{{- else }}{{ first .Values.watchNamespaces }}{{ end }}
{{- end }}
