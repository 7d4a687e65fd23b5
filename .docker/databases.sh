#!/bin/sh
# Run once by the PostgreSQL image on an empty data directory: each service gets a database, a role that owns and migrates
# it, and a role that serves from it and owns nothing.
set -eu

# A comma, a quote or a backslash in a password is taken as it is.
create() {
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set database="$1" --set owner="$1_owner" --set service="$1_svc" \
    --set owner_password="$2" --set service_password="$3" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"service" LOGIN PASSWORD :'service_password';
CREATE DATABASE :"database" OWNER :"owner";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"service";
\connect :"database"
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO :"owner";
SQL
}

create referral "$REFERRAL_OWNER_PASSWORD" "$REFERRAL_SVC_PASSWORD"
create notify "$NOTIFY_OWNER_PASSWORD" "$NOTIFY_SVC_PASSWORD"
