//! A real Prometheus: it scrapes running tools and answers with the right rates. Its own promtool accepts
//! what the tools show and the rules of packaging/, and these and the dashboard name only what there is.

mod scrape;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::line::{Line, datagram};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::Injector;

const TOKENBUCKET: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));
const NEIGHBOR_SHARING: Tool = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
const VLAN_LEARNING: Tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));
const TUNNEL_MONITOR: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const TCP_HOLD: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));

const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/prometheus/netbpf.rules.yml"
);
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/grafana/netbpf.json");

/// How long traffic flows: rates are asked over 10 s of it.
const FLOWS_FOR: Duration = Duration::from_secs(14);
const PAUSE: Duration = Duration::from_millis(10);

/// A program of Debian's package: the machine's, or the one that `make test` has fetched.
fn program(name: &str) -> Option<PathBuf> {
    // Beside the folder that cargo has for the files of tests.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let fetched = target.map(|target| target.join("tools").join(name));
    let machines = Path::new("/usr/bin").join(name);
    fetched
        .into_iter()
        .chain([machines])
        .find(|path| path.is_file())
}

/// As [`program`]; without it the test is skipped.
fn program_or_skip(test: &str, name: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        let reason = format!("{name} is not there: packaging/install-needs test fetches it");
        testbed::skip(test, &reason);
    }
    found
}

/// A folder for a test, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("netbpf-{name}-{}", std::process::id()));
        step("make a folder", fs::create_dir(&path));
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in a folder for what may be lost.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Prometheus at work on loopback.
struct Prometheus<'a> {
    process: Process<'a>,
    _folder: Folder,
}

const API: &str = "127.0.0.1:9090";

impl<'a> Prometheus<'a> {
    /// It scrapes these jobs every second.
    fn start(sandbox: &'a Sandbox, program: &Path, jobs: &[(&str, &str)]) -> Prometheus<'a> {
        let folder = Folder::new("prometheus");
        let mut config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{RULES}]\nscrape_configs:\n"
        );
        for (job, address) in jobs {
            config += &format!(
                "  - job_name: {job}\n    static_configs:\n      - targets: ['{address}']\n"
            );
        }
        let file = folder.file("prometheus.yml");
        step("write its configuration", fs::write(&file, config));
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.file("data").display()
            ))
            .arg(format!("--web.listen-address={API}"));
        let process = sandbox.start(command);
        process.wait_for_error("ready to receive web requests", READY_WITHIN);
        Prometheus {
            process,
            _folder: folder,
        }
    }

    /// What it answers: the labels of each series with its value.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let url = format!("http://{API}/api/v1/query");
        let response = ureq::get(&url).query("query", query).call();
        let text = step(query, step(query, response).body_mut().read_to_string());
        let answer: Value = step(&text, serde_json::from_str(&text));
        let result = answer["data"]["result"].as_array().cloned();
        let series = result.unwrap_or_default().into_iter().map(|series| {
            let value = series["value"][1].as_str().unwrap_or_default().to_owned();
            (series["metric"].clone(), step(&value, value.parse()))
        });
        series.collect()
    }

    /// The only value.
    #[track_caller]
    fn value(&self, query: &str) -> f64 {
        let series = self.query(query);
        let [(_, value)] = series[..] else {
            panic!("{query}: {series:?}\n{}", self.process.stderr());
        };
        value
    }

    /// Waits until a query has this answer.
    #[track_caller]
    fn wait_for(&self, query: &str, wanted: f64) {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let series = self.query(query);
            if matches!(series[..], [(_, value)] if value == wanted) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{query} is not {wanted}: {series:?}"
            );
            sleep(Duration::from_millis(100));
        }
    }
}

fn serving<'a>(sandbox: &'a Sandbox, tool: Tool, arguments: &str, port: u16) -> Process<'a> {
    let process = sandbox.start(tool.command(&format!("{arguments} --metrics :{port}")));
    process.wait_for_error("metrics at http://", READY_WITHIN);
    process
}

#[test]
fn prometheus_tells_the_rates_of_known_traffic() {
    let name = "prometheus_tells_the_rates_of_known_traffic";
    let Some(program) = program_or_skip(name, "prometheus") else {
        return;
    };
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let here = Place::here();
        let _cables = ["trunk0", "w0"].map(|near| {
            let far = format!("{near}-far");
            Veth::new((&here, &far), (&here, near))
        });
        let client = [2, 0, 0, 0, 0, 1];
        let tools = [
            (TOKENBUCKET, "--iface wan0 --rate 1gbit", 9101),
            (
                NEIGHBOR_SHARING,
                "--wan wan0 --neighbor lan0 --neighbor-rate 1gbit",
                9102,
            ),
            (
                VLAN_LEARNING,
                "--trunk trunk0 --map 02:00:00:00:00:01=w0",
                9103,
            ),
            (TUNNEL_MONITOR, "--iface wan0 --listen off", 9104),
        ]
        .map(|(tool, arguments, port)| serving(sandbox, tool, arguments, port));
        let jobs = [
            ("tokenbucket", "127.0.0.1:9101"),
            ("neighbor_sharing", "127.0.0.1:9102"),
            ("vlan_learning", "127.0.0.1:9103"),
            ("tunnel_monitor", "127.0.0.1:9104"),
        ];
        let prometheus = Prometheus::start(sandbox, &program, &jobs);
        prometheus.wait_for("sum(up)", 4.0);

        let series = [
            "netbpf_tokenbucket_passed_packets_total",
            "sum by (way) (netbpf_neighbor_sharing_passed_packets_total{way=\"download\"})",
            "netbpf_vlan_learning_client_packets_total{client=\"02:00:00:00:00:01\",direction=\"rx\"}",
            "sum(netbpf_tunnel_monitor_uncounted_packets_total{reason=\"not_tunnel\"})",
        ];
        let before = prometheus.value(series[0]);
        let frame = datagram(line.frame(), [198, 51, 100, 7].into()).build();
        let tagged = Packet::ethernet(client, [2, 0, 0, 0, 9, 9])
            .vlan(5)
            .payload_of(86)
            .build();
        let senders = [
            (Injector::new(&line.sender, "eth0"), frame.as_slice()),
            (Injector::new(&here, "trunk0-far"), tagged.as_slice()),
        ];
        let (began, mut sent) = (Instant::now(), 0_u32);
        while began.elapsed() < FLOWS_FOR {
            for (sender, frame) in &senders {
                sender.inject([*frame], Duration::ZERO);
            }
            sent += 1;
            sleep(PAUSE);
        }
        let real = f64::from(sent) / began.elapsed().as_secs_f64();
        let rates = [
            "rate(netbpf_tokenbucket_passed_packets_total[10s])",
            "sum(rate(netbpf_neighbor_sharing_passed_packets_total{way=\"download\"}[10s]))",
            "rate(netbpf_vlan_learning_client_packets_total{client=\"02:00:00:00:00:01\",direction=\"rx\"}[10s])",
            "sum(rate(netbpf_tunnel_monitor_uncounted_packets_total{reason=\"not_tunnel\"}[10s]))",
            "rate(netbpf_tokenbucket_passed_bytes_total[10s]) / 64",
        ];
        let told = rates.map(|query| prometheus.value(query));
        for (rate, query) in told.into_iter().zip(rates) {
            // Figures are a second old at most, of ten, and hosts have a word of their own to say.
            let ratio = rate / real;
            assert!((0.75..1.25).contains(&ratio), "{query}: {rate}, not {real}");
        }
        // To the last packet, once the last have been published and scraped.
        prometheus.wait_for(series[0], before + f64::from(sent));
        let growth = format!("max_over_time({0}[1m]) - min_over_time({0}[1m])", series[2]);
        prometheus.wait_for(&growth, f64::from(sent));
        assert_eq!(prometheus.query("ALERTS{severity=\"critical\"}"), []);
        for series in series {
            assert_eq!(prometheus.query(series).len(), 1, "{series}");
        }
        for mut tool in tools {
            tool.write("\n");
            tool.finish(ENDS_WITHIN).assert_code(0);
        }
        prometheus.process.signal(nix::sys::signal::Signal::SIGTERM);
        let Prometheus { process, _folder } = prometheus;
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// The text format, as promtool reads it.
#[test]
fn promtool_accepts_what_the_tools_show() {
    let name = "promtool_accepts_what_the_tools_show";
    let Some(promtool) = program_or_skip(name, "promtool") else {
        return;
    };
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _cables = ["wan0", "lan0"].map(|near| {
            let far = format!("{near}-far");
            Veth::new((&here, &far), (&here, near))
        });
        for (tool, arguments) in [
            (TOKENBUCKET, "--iface wan0"),
            (NEIGHBOR_SHARING, "--wan wan0 --neighbor lan0"),
            (VLAN_LEARNING, "--trunk wan0 --map 02:00:00:00:00:01=lan0"),
            (TUNNEL_MONITOR, "--iface wan0 --listen off"),
            (TCP_HOLD, "agent /run/agent --iface wan0"),
        ] {
            let mut process = serving(sandbox, tool, arguments, 9101);
            let (kind, text) = scrape::get("127.0.0.1:9101", "text/plain;version=0.0.4");
            assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
            let mut command = Command::new(&promtool);
            command.args(["check", "metrics"]);
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut check = step("start promtool", command.spawn());
            let stdin = check
                .stdin
                .take()
                .unwrap_or_else(|| panic!("it has an input"));
            step("hand over", { stdin }.write_all(text.as_bytes()));
            let output = step("run promtool", check.wait_with_output());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments}: {said}\n{text}");
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn promtool_accepts_the_rules() {
    let name = "promtool_accepts_the_rules";
    let Some(promtool) = program_or_skip(name, "promtool") else {
        return;
    };
    let mut command = Command::new(promtool);
    let output = step(
        "run promtool",
        command.args(["check", "rules", RULES]).output(),
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("SUCCESS: 15 rules found"), "{said}");
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let names = words.filter(|word| word.starts_with("netbpf_") && !word.ends_with('_'));
    names.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_name_what_there_is() {
    let tools = [
        "neighbor_sharing",
        "tokenbucket",
        "vlan_learning",
        "tunnel_monitor",
        "tcp_hold",
    ];
    let known: BTreeSet<String> = tools
        .iter()
        .flat_map(|tool| scrape::documented(tool).into_keys())
        .collect();
    for path in [RULES, DASHBOARD] {
        let text = step(path, fs::read_to_string(path));
        // Groups of rules have names as well.
        let text = text.replace("name: netbpf_", "name: ");
        let names = named(&text);
        let unknown: Vec<&String> = names.difference(&known).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "{path}");
        assert!(names.len() > 20, "{path}: {names:?}");
        for tool in tools {
            let prefix = format!("netbpf_{tool}_");
            assert!(
                names.iter().any(|name| name.starts_with(&prefix)),
                "{path}: {tool}"
            );
        }
    }
    let text = step(DASHBOARD, fs::read_to_string(DASHBOARD));
    let dashboard: Value = step(DASHBOARD, serde_json::from_str(&text));
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let ids: BTreeSet<i64> = panels
        .iter()
        .filter_map(|panel| panel["id"].as_i64())
        .collect();
    assert_eq!(
        ids.len(),
        panels.len(),
        "each panel has a number of its own"
    );
    for expression in panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let expression = expression["expr"].as_str().unwrap_or_default();
        assert!(
            expression.contains("instance=~\"$instance\""),
            "{expression}"
        );
    }
}

/// Without documentation there would be nothing to hold them to; with another scrape it would be noticed.
#[test]
fn a_scrape_that_breaks_the_rules_is_noticed() {
    let good = "# HELP a_b What.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{l=\"x\"} 1\n# EOF\n";
    let described = scrape::described(good);
    assert_eq!(described["a_b_total"].unit, "b");
    assert!(described["a_b_total"].labels.contains("l"));
    assert_eq!(scrape::value(good, "a_b_total{l=\"x\"}"), Some(1.0));
    for bad in [
        good.replace("# EOF\n", ""),
        good.replace("a_b_total{", "a_b{"),
        good.replace("UNIT a_b b", "UNIT a_b c"),
        good.replace(" 1\n", " one\n"),
    ] {
        let result = std::panic::catch_unwind(|| scrape::described(&bad));
        assert!(result.is_err(), "{bad}");
    }
}
