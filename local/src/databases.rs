//! The roles and databases of both services, set up on a private server.

use tokio_postgres::Client;

/// One service's database: who owns it (and migrates), and who serves from it.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// The database's name in the local pair.
    pub database: &'static str,
    /// Owns the database and everything in it.
    pub owner: &'static str,
    /// The service's own role, which owns nothing.
    pub service: &'static str,
}

/// referral-svc's.
pub const REFERRAL: Ownership = Ownership { database: "referral", owner: "referral_owner", service: "referral_svc" };

/// notify-svc's.
pub const NOTIFY: Ownership = Ownership { database: "notify", owner: "notify_owner", service: "notify_svc" };

impl Ownership {
    /// Creates what is missing of the two roles; `superuser` is a connection to any database.
    pub async fn create_roles(&self, superuser: &Client) -> Result<(), tokio_postgres::Error> {
        for role in [self.owner, self.service] {
            let found = superuser.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await?;
            if found.is_none() {
                superuser.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await?;
            }
        }
        Ok(())
    }

    /// Creates a database, unless it is there, that belongs to the owner and that the service's role may enter.
    /// `name` and `template` are identifiers of ours and need no quotes.
    pub async fn create_database(
        &self,
        superuser: &Client,
        name: &str,
        template: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let Self { owner, service, .. } = self;
        let found = superuser.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).await?;
        if found.is_none() {
            superuser.batch_execute(&format!("CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}")).await?;
        }
        superuser
            .batch_execute(&format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {service}"
            ))
            .await
    }

    /// Closes the database's schema to all but its owner, as PostgreSQL 15 and newer have it from the start; `superuser` is
    /// a connection to that database.
    pub async fn close_schema(&self, superuser: &Client) -> Result<(), tokio_postgres::Error> {
        let open = "SELECT 1 FROM pg_namespace, aclexplode(nspacl)
            WHERE nspname = 'public' AND grantee = 0 AND privilege_type = 'CREATE'";
        if superuser.query_opt(open, &[]).await?.is_some() {
            let close = "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO";
            superuser.batch_execute(&format!("{close} {}", self.owner)).await?;
        }
        Ok(())
    }
}
