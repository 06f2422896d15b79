"""Traces of requests, for OpenTelemetry's collectors: made of what is noted anyway, afterwards."""
