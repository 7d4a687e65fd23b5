//! The service under test, twice on one database, and what befalls it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use chrono::TimeDelta;
use p2phub_tests::{
    clients::Clients,
    instance::Instance,
    pair::{Options, Pair},
    ports,
    postgres::Server,
    process::CLOCK_AHEAD,
};
use rand::{RngExt, rngs::StdRng};
use referral_svc::Clock;
use serde_json::json;
use tempfile::TempDir;

use super::{HOLDING_DAYS, bills::PLAN_VERSION};
use crate::{PAIR_PROCESS, payments::plan::plan_file};

/// In how many rounds of a hundred every connection is cut.
const CUTS: u32 = 20;

/// What may be killed at once, and in how many rounds of a hundred.
const KILLS: [(u32, Victims); 6] = [
    (15, Victims { first: true, other: false, database: false }),
    (15, Victims { first: false, other: true, database: false }),
    (10, Victims { first: true, other: true, database: false }),
    (20, Victims { first: false, other: false, database: true }),
    (10, Victims { first: false, other: true, database: true }),
    (10, Victims { first: true, other: true, database: true }),
];

#[derive(Clone, Copy)]
struct Victims {
    first: bool,
    other: bool,
    database: bool,
}

/// Two instances of referral-svc, under one clock.
pub(super) struct Stage {
    pub(super) pair: Pair,
    pub(super) instances: [Clients; 2],
    /// The second instance.
    other: Option<Instance>,
    other_address: SocketAddr,
    clock: Clock,
    kind: Kind,
    /// What befell it, and how often.
    pub(super) faults: BTreeMap<&'static str, usize>,
    _plan: TempDir,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// In this process; now and then every connection to the database is cut.
    Cut,
    /// Processes, and a server of their own; SIGKILL for each of them.
    Killed,
}

impl Stage {
    pub(super) async fn set(kind: Kind) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let changes = json!({ "version": PLAN_VERSION, "commission_holding_days": HOLDING_DAYS });
        let plan = plan_file(&directory, &changes);
        let clock = Clock::default();
        let options = match kind {
            Kind::Cut => {
                let shared = clock.clone();
                Options::default().proxied().referral(move |config| {
                    config.clock = shared.clone();
                    config.plan_file = Some(plan.clone());
                })
            }
            Kind::Killed => Options::default()
                .server(Arc::new(Server::own().await))
                .processes(PAIR_PROCESS)
                .variable("PLAN_FILE", plan.to_str().expect("a path"))
                .variable(CLOCK_AHEAD, "0"),
        };
        let pair = options.start_alone().await;
        let other_address = ports::free();
        Self {
            instances: [pair.clients.clone(), Clients::new(other_address, pair.notify_address)],
            other: Some(pair.another_referral(other_address).await),
            other_address,
            pair,
            clock,
            kind,
            faults: BTreeMap::new(),
            _plan: directory,
        }
    }

    /// From now on, every clock goes so far ahead.
    pub(super) async fn set_ahead(&mut self, ahead: TimeDelta) {
        self.clock.set_ahead(ahead);
        if self.kind == Kind::Killed {
            let micros = ahead.num_microseconds().expect("not that long");
            self.pair.set_variable(CLOCK_AHEAD, &micros.to_string());
            for instance in self.pair.referral.iter_mut().chain(&mut self.other) {
                instance.set_ahead(ahead).await;
            }
        }
    }

    /// Now and then, something happens in the middle of a round that takes about so long. When this returns, everything runs
    /// again.
    pub(super) async fn disturb(&mut self, random: &mut StdRng, round: Duration) {
        let moment = round.mul_f64(random.random());
        let mut pick = random.random_range(0..100);
        // When is the point here, and below: no event ends it.
        match self.kind {
            Kind::Cut if pick < CUTS => {
                tokio::time::sleep(moment).await;
                self.pair.proxies().database.cut_once();
                *self.faults.entry("connections cut").or_default() += 1;
            }
            Kind::Cut => {}
            Kind::Killed => {
                for (share, victims) in KILLS {
                    if pick < share {
                        tokio::time::sleep(moment).await;
                        return self.kill(victims).await;
                    }
                    pick -= share;
                }
            }
        }
    }

    async fn kill(&mut self, victims: Victims) {
        if victims.database {
            self.pair.server.kill().await.expect("a kill");
            *self.faults.entry("PostgreSQL killed").or_default() += 1;
        }
        if victims.first {
            self.pair.kill_referral();
            *self.faults.entry("instances killed").or_default() += 1;
        }
        if victims.other {
            self.other.take().expect("it runs").kill();
            *self.faults.entry("instances killed").or_default() += 1;
        }
        if victims.database {
            self.pair.server.start().await.expect("a recovery");
        }
        if victims.first {
            self.pair.start_referral().await;
        }
        if victims.other {
            self.other = Some(self.pair.another_referral(self.other_address).await);
        }
    }

    /// What processes that run have logged as errors.
    pub(super) fn errors(&self) -> String {
        let logs: Vec<String> = self.pair.referral.iter().chain(&self.other).map(Instance::log).collect();
        logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("ERROR")).collect::<Vec<_>>().join("\n")
    }

    pub(super) async fn finish(mut self) {
        self.other.take().expect("it runs").stop().await;
        self.pair.finish().await;
    }
}
