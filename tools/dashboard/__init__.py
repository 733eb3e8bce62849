"""The dashboard of docker/grafana, made from a table of panels."""
