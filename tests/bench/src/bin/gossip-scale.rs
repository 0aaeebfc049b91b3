//! Simulates how the cost of gossip grows with the members: the real engine with the real
//! parameters, on an in-memory network, in virtual time. Prints a table, or one JSON document with
//! `--json`.
//!
//! `cargo run --release -p muster-bench --bin gossip-scale [--json] [MEMBERS…]`
//!
//! All members run; nothing is sampled. Members that are killed, return or idle have met long
//! before. Starting together is left out above [`TOGETHER`] members and loss above [`LOSSY`],
//! because their simulation takes time with the cube of the members. The table then shows `-`.

#![allow(clippy::print_stdout, reason = "the table is its purpose")]

use std::time::{Duration, Instant};

use muster_gossip::Settings;
use muster_gossip::simulation::{OVERHEAD, Simulation};
use serde_json::{Value, json};

const TOGETHER: usize = 2000;
const LOSSY: usize = 2000;
const SECOND: Duration = Duration::from_secs(1);
/// Members that have not converged by then count as never.
const LIMIT: Duration = Duration::from_mins(1);

/// Convergence times of the members, over all seeds.
#[derive(Default)]
struct Times {
    took: Vec<Duration>,
    never: usize,
}

impl Times {
    /// Runs the simulation until each of `pending` sees exactly `others` others.
    fn add(&mut self, s: &mut Simulation, mut pending: Vec<usize>, others: usize) {
        let from = s.elapsed();
        while !pending.is_empty() && s.elapsed() < from + LIMIT {
            s.run_for(Duration::from_millis(10));
            let took = s.elapsed().saturating_sub(from);
            pending.retain(|index| {
                let sees = s.engine(*index).is_some_and(|engine| engine.seen() == others);
                if sees {
                    self.took.push(took);
                }
                !sees
            });
        }
        self.never += pending.len();
    }

    fn json(mut self) -> Value {
        self.took.sort_unstable();
        let Some(last) = self.took.len().checked_sub(1) else { return Value::Null };
        let at = |percent: usize| self.took[(self.took.len() * percent / 100).min(last)];
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({ "p50_ms": ms(at(50)), "p95_ms": ms(at(95)), "max_ms": ms(self.took[last]),
                "never": self.never })
    }
}

/// Traffic of all members in some time, and the number of false alarms.
#[derive(Default)]
struct Traffic {
    datagrams: u64,
    bytes: u64,
    downs: u64,
    member_seconds: f64,
}

impl Traffic {
    fn add(&mut self, s: &mut Simulation, span: Duration) {
        let tally = s.take_tally();
        self.member_seconds += span.as_secs_f64() * f64::from(number(s.running().count()));
        self.datagrams += tally.iter().map(|member| member.datagrams).sum::<u64>();
        self.bytes += tally.iter().map(|member| member.bytes).sum::<u64>();
        self.downs += tally.iter().map(|member| member.downs).sum::<u64>();
    }

    #[expect(clippy::cast_precision_loss, reason = "measurements for display")]
    fn json(&self) -> Value {
        if self.member_seconds == 0.0 {
            return Value::Null;
        }
        let per = |count: u64| (count as f64 / self.member_seconds * 10.0).round() / 10.0;
        let wire = self.bytes + self.datagrams * OVERHEAD as u64;
        json!({ "datagrams": per(self.datagrams), "bytes": per(self.bytes),
                "bytes_on_the_wire": per(wire), "false_alarms": self.downs,
                "member_seconds": self.member_seconds.round() })
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn seeds(members: usize) -> u64 {
    match members {
        0..=100 => 20,
        101..=400 => 5,
        401..=1000 => 2,
        _ => 1,
    }
}

fn together(members: usize) -> (Value, Value) {
    let (mut times, mut traffic) = (Times::default(), Traffic::default());
    for seed in 0..seeds(members) {
        let mut s = Simulation::new(members, seed, Settings::default(), Instant::now());
        s.start_all();
        times.add(&mut s, (0..members).collect(), members - 1);
        let span = s.elapsed();
        traffic.add(&mut s, span);
    }
    (times.json(), traffic.json())
}

fn measure(members: usize) -> Value {
    let began = Instant::now();
    let (mut noticed, mut back) = (Times::default(), Times::default());
    let (mut rest, mut lossy) = (Traffic::default(), Traffic::default());
    let mut memory = 0;
    let before = resident();
    for seed in 0..seeds(members) {
        let mut s = Simulation::new(members, 100 + seed, Settings::default(), Instant::now());
        s.start_with_contacts(Settings::default().probe_period);
        s.run_for(2 * SECOND);
        s.take_tally();
        s.run_for(10 * SECOND);
        rest.add(&mut s, 10 * SECOND);
        memory = memory.max(resident().saturating_sub(before));
        let victim = members / 2;
        let others: Vec<_> = (0..members).filter(|index| *index != victim).collect();
        s.kill(victim);
        noticed.add(&mut s, others.clone(), members - 2);
        s.start(victim, 2);
        back.add(&mut s, (0..members).collect(), members - 1);
        if members <= LOSSY {
            s.run_for(2 * SECOND);
            s.take_tally();
            s.network.loss = 0.2;
            let span = if members <= 400 { 60 * SECOND } else { 10 * SECOND };
            s.run_for(span);
            lossy.add(&mut s, span);
        }
    }
    let with_contacts = began.elapsed();
    let (started, starting) =
        if members <= TOGETHER { together(members) } else { (Value::Null, Value::Null) };
    json!({
        "members": members, "seeds": seeds(members), "simulated": true,
        "all_see_all_when_started_together": started, "traffic_while_starting": starting,
        "death_noticed": noticed.json(), "one_comes_back_seen_by_all": back.json(),
        "traffic_at_rest": rest.json(), "traffic_at_20_percent_loss": lossy.json(),
        "memory_kib_per_member": memory / members as u64,
        "computed_in_s": [with_contacts.as_secs(), began.elapsed().as_secs()],
    })
}

fn time(value: &Value) -> String {
    if value.is_null() {
        return "-".to_owned();
    }
    let never = match value["never"].as_u64() {
        Some(0) | None => String::new(),
        Some(never) => format!(" ({never} never)"),
    };
    format!("{}/{}/{} ms{never}", value["p50_ms"], value["p95_ms"], value["max_ms"])
}

fn traffic(value: &Value) -> String {
    if value.is_null() {
        return "-".to_owned();
    }
    format!(
        "{} B/s, {} datagrams/s; {} false alarms in {} member seconds",
        value["bytes_on_the_wire"],
        value["datagrams"],
        value["false_alarms"],
        value["member_seconds"]
    )
}

fn print(measurements: &Value) {
    println!("{} members (simulated, {} seeds)", measurements["members"], measurements["seeds"]);
    println!("  times are p50/p95/max over members and seeds; traffic is per member, with headers");
    let row = |name: &str, text: String| println!("  {name:<38} {text}");
    row("started together, all see all", time(&measurements["all_see_all_when_started_together"]));
    row("a killed one is noticed", time(&measurements["death_noticed"]));
    row("it comes back, all see all", time(&measurements["one_comes_back_seen_by_all"]));
    row("while starting", traffic(&measurements["traffic_while_starting"]));
    row("at rest", traffic(&measurements["traffic_at_rest"]));
    row("with 20 % loss", traffic(&measurements["traffic_at_20_percent_loss"]));
    row("memory", format!("{} KiB for each member", measurements["memory_kib_per_member"]));
    row("computed in", format!("{} s", measurements["computed_in_s"][1]));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let mut sizes: Vec<usize> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![40, 200, 1000];
    }
    let measurements: Vec<Value> = sizes
        .into_iter()
        .map(|members| {
            let measurements = measure(members.max(3));
            if !json {
                print(&measurements);
            }
            measurements
        })
        .collect();
    if json {
        println!("{:#}", Value::Array(measurements));
    }
}
