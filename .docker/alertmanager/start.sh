#!/bin/sh
# Writes Alertmanager's configuration from alertmanager.yml and the environment into $ALERT_DIR, which is memory only, and
# runs the command given. Secrets stand in files there, never in the configuration.
#
#   ALERT_SLACK_WEBHOOK_URL  unset: critical alerts go by e-mail only
#   ALERT_EMAIL_TO, ALERT_EMAIL_FROM
#   ALERT_SMTP_HOST          host:port; unset: the mail catcher
#   ALERT_SMTP_USER, ALERT_SMTP_PASSWORD  with a user the connection must be encrypted (STARTTLS, or TLS on port 465)
set -eu
umask 077
directory="${ALERT_DIR:-/tmp}"
config="$directory/alertmanager.yml"

# Every `key: 'value'` of that name gets this value, quoted as YAML and for sed.
set_all() {
  value=$(printf %s "$2" | sed -e "s/'/''/g" -e 's/[\\&|]/\\&/g')
  sed "s|$1: '[^']*'|$1: '$value'|" "$config" >"$config.new"
  mv "$config.new" "$config"
}

if [ -n "${ALERT_SLACK_WEBHOOK_URL:-}" ]; then
  printf %s "$ALERT_SLACK_WEBHOOK_URL" >"$directory/slack-webhook"
  sed "s|/tmp/slack-webhook|$directory/slack-webhook|" "$(dirname "$0")/alertmanager.yml" >"$config"
else
  sed '/# Slack$/d' "$(dirname "$0")/alertmanager.yml" >"$config"
fi
[ -z "${ALERT_EMAIL_TO:-}" ] || set_all 'to' "$ALERT_EMAIL_TO"
[ -z "${ALERT_EMAIL_FROM:-}" ] || set_all smtp_from "$ALERT_EMAIL_FROM"
[ -z "${ALERT_SMTP_HOST:-}" ] || set_all smtp_smarthost "$ALERT_SMTP_HOST"
if [ -n "${ALERT_SMTP_USER:-}" ]; then
  printf %s "${ALERT_SMTP_PASSWORD:-}" >"$directory/smtp-password"
  login="smtp_auth_username: ''\n  smtp_auth_password_file: '$directory/smtp-password'\n  smtp_require_tls: true"
  sed "s|smtp_require_tls: false|$login|" "$config" >"$config.new"
  mv "$config.new" "$config"
  set_all smtp_auth_username "$ALERT_SMTP_USER"
fi
exec "$@"
