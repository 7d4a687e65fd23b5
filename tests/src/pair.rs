//! A pair of services for one test, on databases of its own.

use std::{net::SocketAddr, sync::Arc};

use tokio_postgres::Client;

use crate::{
    clients::Clients,
    instance::Instance,
    ports,
    postgres::{self, Databases, Role, Server},
    proxy::{Proxy, Upstream},
};

/// In the URLs that the services get. Their PostgreSQL asks for none, so that any will do.
pub const DATABASE_PASSWORD: &str = "planted-database-password";
const PAYMENT_METHODS: &str = "trusted,manual";

type Adjust<C> = Box<dyn Fn(&mut C) + Send + Sync>;

/// How a test wants its pair. The default: both in this process, straight to the database and to each other.
pub struct Options {
    server: Option<Arc<Server>>,
    program: Option<&'static str>,
    proxied: bool,
    variables: Vec<(String, String)>,
    referral: Adjust<referral_svc::Config>,
    notify: Adjust<notify_svc::Config>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server: None,
            program: None,
            proxied: false,
            variables: Vec::new(),
            referral: Box::new(|_| {}),
            notify: Box::new(|_| {}),
        }
    }
}

impl Options {
    /// On this server, not the shared one; for tests that stop or kill it.
    #[must_use]
    pub fn server(mut self, server: Arc<Server>) -> Self {
        self.server = Some(server);
        self
    }

    /// Each instance is a process of its own: `program` is `env!("CARGO_BIN_EXE_pair-process")`, or any that runs
    /// `process::main` when `PAIR_PROCESS` is set.
    #[must_use]
    pub fn processes(mut self, program: &'static str) -> Self {
        self.program = Some(program);
        self
    }

    /// Proxies between the services and their databases, and between referral-svc and notify-svc.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// For processes: one more environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// For instances in this process: changes referral-svc's settings.
    #[must_use]
    pub fn referral(mut self, adjust: impl Fn(&mut referral_svc::Config) + Send + Sync + 'static) -> Self {
        self.referral = Box::new(adjust);
        self
    }

    /// For instances in this process: changes notify-svc's settings.
    #[must_use]
    pub fn notify(mut self, adjust: impl Fn(&mut notify_svc::Config) + Send + Sync + 'static) -> Self {
        self.notify = Box::new(adjust);
        self
    }

    /// Databases and addresses, with nothing running.
    pub async fn prepare(self) -> Pair {
        let server = match self.server.clone() {
            Some(server) => server,
            None => Server::shared().await,
        };
        let databases = server.fresh().await;
        let (referral_address, notify_address) = (ports::free(), ports::free());
        let proxies = if self.proxied {
            Some(Proxies {
                database: Proxy::start(Upstream::Unix(server.socket())).await,
                stream: Proxy::start(Upstream::Tcp(notify_address)).await,
            })
        } else {
            None
        };
        Pair {
            clients: Clients::new(referral_address, notify_address),
            options: self,
            server,
            databases,
            referral_address,
            notify_address,
            proxies,
            referral: None,
            notify: None,
        }
    }

    /// referral-svc alone: what it has to tell waits in its outbox.
    pub async fn start_alone(self) -> Pair {
        let mut pair = self.prepare().await;
        pair.start_referral().await;
        pair
    }

    /// Both services, running.
    pub async fn start(self) -> Pair {
        let mut pair = self.prepare().await;
        pair.start_notify().await;
        pair.start_referral().await;
        pair
    }
}

/// The proxies of a pair that was started with `Options::proxied`.
pub struct Proxies {
    /// Between both services and PostgreSQL.
    pub database: Proxy,
    /// Between referral-svc and notify-svc.
    pub stream: Proxy,
}

/// Two services on two databases. Each comes back under its old address after a stop or a kill.
pub struct Pair {
    pub clients: Clients,
    pub server: Arc<Server>,
    pub databases: Databases,
    pub referral_address: SocketAddr,
    pub notify_address: SocketAddr,
    pub referral: Option<Instance>,
    pub notify: Option<Instance>,
    proxies: Option<Proxies>,
    options: Options,
}

impl Pair {
    /// Both services in this process.
    pub async fn start() -> Self {
        Options::default().start().await
    }

    pub async fn start_referral(&mut self) {
        assert!(self.referral.is_none(), "referral-svc runs already");
        self.referral = Some(self.another_referral(self.referral_address).await);
    }

    pub async fn start_notify(&mut self) {
        assert!(self.notify.is_none(), "notify-svc runs already");
        self.notify = Some(self.another_notify(self.notify_address).await);
    }

    pub async fn stop_referral(&mut self) {
        self.referral.take().expect("referral-svc runs").stop().await;
    }

    pub async fn stop_notify(&mut self) {
        self.notify.take().expect("notify-svc runs").stop().await;
    }

    /// For processes that are started from now on: another value of an environment variable.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let variables = &mut self.options.variables;
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value.to_owned()));
    }

    /// SIGKILL; only with `Options::processes`.
    pub fn kill_referral(&mut self) {
        self.referral.take().expect("referral-svc runs").kill();
    }

    /// SIGKILL; only with `Options::processes`.
    pub fn kill_notify(&mut self) {
        self.notify.take().expect("notify-svc runs").kill();
    }

    /// One more instance of referral-svc on the same database.
    pub async fn another_referral(&self, address: SocketAddr) -> Instance {
        let database = self.url(&self.server.referral_url(&self.databases, Role::Service));
        let migration = self.server.referral_url(&self.databases, Role::Owner);
        let stream = self.proxies.as_ref().map_or(self.notify_address, |proxies| proxies.stream.address());
        let notify = format!("http://{stream}");
        if let Some(program) = self.options.program {
            let listen = address.to_string();
            let variables = self.variables([
                ("REFERRAL_LISTEN", listen.as_str()),
                ("REFERRAL_DATABASE_URL", database.as_str()),
                ("REFERRAL_MIGRATION_URL", migration.as_str()),
                ("NOTIFY_URL", notify.as_str()),
                ("PAYMENT_METHODS", PAYMENT_METHODS),
            ]);
            return Instance::process(program, "referral-svc", address, &variables).await;
        }
        let mut config = referral_svc::Config::new(database);
        config.migration_url = Some(migration);
        config.listen = address;
        config.notify_url = notify;
        config.payment_methods = PAYMENT_METHODS.to_owned();
        (self.options.referral)(&mut config);
        Instance::referral(config).await
    }

    /// One more instance of notify-svc on the same database.
    pub async fn another_notify(&self, address: SocketAddr) -> Instance {
        let database = self.url(&self.server.notify_url(&self.databases, Role::Service));
        let migration = self.server.notify_url(&self.databases, Role::Owner);
        if let Some(program) = self.options.program {
            let (listen, referral) = (address.to_string(), format!("http://{}", self.referral_address));
            let variables = self.variables([
                ("NOTIFY_LISTEN", listen.as_str()),
                ("REFERRAL_URL", referral.as_str()),
                ("NOTIFY_DATABASE_URL", database.as_str()),
                ("NOTIFY_MIGRATION_URL", migration.as_str()),
            ]);
            return Instance::process(program, "notify-svc", address, &variables).await;
        }
        let mut config = notify_svc::Config::new(database);
        config.migration_url = Some(migration);
        config.listen = address;
        config.referral_url = Some(format!("http://{}", self.referral_address));
        (self.options.notify)(&mut config);
        Instance::notify(config).await
    }

    /// The proxies, if there are any.
    pub fn proxies(&self) -> &Proxies {
        self.proxies.as_ref().expect("a pair with Options::proxied")
    }

    /// SQL on referral-svc's database.
    pub async fn referral_sql(&self, role: Role) -> Client {
        postgres::connect(&self.server.referral_url(&self.databases, role)).await
    }

    /// SQL on notify-svc's database.
    pub async fn notify_sql(&self, role: Role) -> Client {
        postgres::connect(&self.server.notify_url(&self.databases, role)).await
    }

    /// Stops what runs and drops the databases; without it both go with the process.
    pub async fn finish(mut self) {
        if let Some(referral) = self.referral.take() {
            referral.stop().await;
        }
        if let Some(notify) = self.notify.take() {
            notify.stop().await;
        }
        self.server.discard(&self.databases).await;
    }

    /// The database's URL with a password, or that of the same database through the proxy.
    fn url(&self, direct: &str) -> String {
        let direct = direct.replacen('@', &format!(":{DATABASE_PASSWORD}@"), 1);
        let Some(proxies) = &self.proxies else {
            return direct;
        };
        let (start, _) = direct.split_once("?host=").expect("a URL with a socket");
        start.replacen("@/", &format!("@{}/", proxies.database.address()), 1)
    }

    fn variables<const N: usize>(&self, own: [(&str, &str); N]) -> Vec<(String, String)> {
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        own.chain(self.options.variables.iter().cloned()).collect()
    }
}
