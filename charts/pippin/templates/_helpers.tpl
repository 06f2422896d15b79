{{/* The stem of every name: the release's, once. `pippin` for the release `pippin`. */}}
{{- define "pippin.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pippin.operator.name" -}}{{ include "pippin.fullname" . }}-operator{{- end -}}
{{- define "pippin.gateway.name" -}}{{ include "pippin.fullname" . }}-gateway{{- end -}}
{{- define "pippin.redis.name" -}}{{ include "pippin.fullname" . }}-redis{{- end -}}

{{/* Whether the release runs a Redis: not where the gateway is given another. */}}
{{- define "pippin.redis.own" -}}
{{- if and .Values.redis.enabled (not .Values.gateway.config.redisUrl) }}yes{{ end -}}
{{- end -}}

{{/* The Secret with the password of the Redis that the gateway uses; empty for none. */}}
{{- define "pippin.redis.secret" -}}
{{- if include "pippin.redis.own" . -}}
{{- default (include "pippin.redis.name" .) .Values.redis.existingSecret -}}
{{- else -}}
{{- .Values.gateway.redisSecret -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object; call with (list $ "component"). The version never enters a selector. */}}
{{- define "pippin.labels" -}}
{{- $root := index . 0 -}}
{{ include "pippin.selector" . }}
app.kubernetes.io/part-of: pippin
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What selects a component's Pods; never changes over the life of a release. */}}
{{- define "pippin.selector" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
app.kubernetes.io/name: pippin-{{ $component }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ $component }}
{{- end -}}

{{/* [registry/]repository:tag[@digest]; call with (list $ .Values.images.X). */}}
{{- define "pippin.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Where applications find the gateway: what is said, else the Ingress, the host port, the Service. */}}
{{- define "pippin.publicUrl" -}}
{{- if .Values.gateway.publicUrl -}}
{{- trimSuffix "/" .Values.gateway.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
{{- ternary "https" "http" .Values.ingress.tls.enabled }}://{{ .Values.ingress.host -}}
{{- else if .Values.gateway.hostPort -}}
http://127.0.0.1:{{ .Values.gateway.hostPort }}
{{- else -}}
http://{{ include "pippin.gateway.name" . }}.{{ .Release.Namespace }}.svc
{{- if ne (int .Values.gateway.service.port) 80 }}:{{ .Values.gateway.service.port }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Pod Security "restricted", for a Pod and for its container. */}}
{{- define "pippin.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pippin.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where a component's Pods may run; call with (list $ .Values.X). */}}
{{- define "pippin.placement" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels that the operator gives to every server Pod. */}}
{{- define "pippin.serverPods" -}}
app.kubernetes.io/name: pippin-server
app.kubernetes.io/managed-by: pippin
{{- end -}}

{{/* What every Pod of ours may call: DNS and the API server, whose address nobody knows here. */}}
{{- define "pippin.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
