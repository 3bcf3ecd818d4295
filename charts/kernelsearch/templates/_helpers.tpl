{{- define "kernelsearch.name" -}}{{ .Release.Name | trunc 50 }}-operator{{- end }}
{{- define "kernelsearch.labels" -}}
app.kubernetes.io/name: kernelsearch
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "kernelsearch.selector" -}}
app.kubernetes.io/name: kernelsearch
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "kernelsearch.image" -}}
{{- $registry := .root.Values.global.imageRegistry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
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
{{- define "kernelsearch.rules" -}}
- {apiGroups: [kernelsearch.dev], resources: [kernelsearches, modelservers, verifierpools], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [kernelsearch.dev], resources: [kernelsearches/status, modelservers/status, verifierpools/status], verbs: [get, patch, update]}
- {apiGroups: [kernelsearch.dev], resources: [kernelsearches/finalizers, modelservers/finalizers, verifierpools/finalizers], verbs: [update]}
- {apiGroups: [""], resources: [pods, services, configmaps, serviceaccounts], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [get, list, watch, create, patch, update, delete]}
{{- end }}
