//! What processes use: CPU time and memory, from /proc.

use std::{fs, time::Instant};

use p2phub_tests::{instance::Instance, pair::Pair, postgres::Role};

/// Linux counts CPU time for /proc in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Who is watched, and what they had used when the watch began.
pub(crate) struct Watch {
    postmaster: u32,
    services: Vec<u32>,
    start: Instant,
    used: [f64; 3],
}

/// Cores that were busy on average.
pub(crate) struct Cores {
    pub(crate) postgres: f64,
    pub(crate) services: f64,
    /// The benchmark's own: its load and its receiver.
    pub(crate) bench: f64,
}

impl Watch {
    pub(crate) async fn begin(pair: &Pair, services: &[&Instance]) -> Self {
        let client = pair.notify_sql(Role::Superuser).await;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0);
        let backend = Stat::of(backend.unsigned_abs()).expect("a backend");
        let services = services.iter().filter_map(|service| service.process_id()).collect();
        let mut watch = Self { postmaster: backend.parent, services, start: Instant::now(), used: [0.0; 3] };
        watch.used = watch.used();
        watch
    }

    pub(crate) fn end(self) -> Cores {
        let seconds = self.start.elapsed().as_secs_f64();
        let [postgres, services, bench] = self.used();
        let [postgres_before, services_before, bench_before] = self.used;
        Cores {
            postgres: (postgres - postgres_before) / seconds,
            services: (services - services_before) / seconds,
            bench: (bench - bench_before) / seconds,
        }
    }

    fn used(&self) -> [f64; 3] {
        let total = |stats: &mut dyn Iterator<Item = Stat>| stats.map(|stat| stat.seconds).sum::<f64>();
        let all =
            fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let postgres = all.filter_map(Stat::of).filter(|stat| stat.parent == self.postmaster);
        [
            total(&mut postgres.chain(Stat::of(self.postmaster).map(Stat::with_children))),
            total(&mut self.services.iter().filter_map(|id| Stat::of(*id))),
            total(&mut Stat::of(std::process::id()).into_iter()),
        ]
    }
}

/// A line of /proc/<pid>/stat.
struct Stat {
    parent: u32,
    seconds: f64,
    children_seconds: f64,
}

impl Stat {
    fn of(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name before it may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let seconds = |first: usize| -> Option<f64> {
            let ticks: f64 = fields.get(first)?.parse().ok()?;
            let system: f64 = fields.get(first + 1)?.parse().ok()?;
            Some((ticks + system) / TICKS_PER_SECOND)
        };
        Some(Self { parent: fields.get(1)?.parse().ok()?, seconds: seconds(11)?, children_seconds: seconds(13)? })
    }

    /// With what those used that have ended.
    fn with_children(self) -> Self {
        Self { seconds: self.seconds + self.children_seconds, ..self }
    }
}

/// Resident memory in MiB.
pub(crate) fn resident_mib(instance: &Instance) -> f64 {
    let id = instance.process_id().expect("a process");
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a process's status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}
