//! What neighbor_sharing prints: its JSON against the schema in docs/, its picture within 80 columns.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::namespace::Place;
use testbed::netserver::{LINE, Netserver};
use testbed::process::{Input, Output};
use testbed::schema::Schema;
use testbed::{sandbox, step};

fn schema() -> Schema {
    Schema::read("docs/neighbor_sharing.schema.json")
}

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
    command.args(arguments);
    command
}

#[test]
fn the_schema_is_not_satisfied_by_anything() {
    let schema = schema();
    let empty = schema.misfits(&serde_json::json!({}));
    assert!(
        empty.contains(&": meters is missing".to_owned()),
        "{empty:?}"
    );
    let strange = serde_json::json!({ "meters": [{ "way": "sideways" }], "guess": 1 });
    let strange = schema.misfits(&strange);
    assert!(
        strange.contains(&"/guess is not known".to_owned()),
        "{strange:?}"
    );
    assert!(
        strange
            .iter()
            .any(|misfit| misfit.starts_with("/meters/0/way: ")),
        "{strange:?}"
    );
}

#[test]
fn every_line_of_json_fits_the_schema() {
    sandbox::run("every_line_of_json_fits_the_schema", |sandbox| {
        let arguments = [
            "--json",
            "--interval",
            "300ms",
            "--duration",
            "1.2",
            "--direction",
        ];
        let command = tool(&[arguments.as_slice(), &["download"]].concat());
        let tool = sandbox.start_with(command, Input::AtEnd, Output::Read);
        tool.wait_for_error("Press enter", Duration::from_secs(10));
        let client = step("parse an address", "172.16.1.150".parse());
        assert!(testbed::traffic::reaches(&Place::named("wan0"), client));
        let ended = tool.finish(Duration::from_secs(10));
        ended.assert_code(0);
        let lines = schema().fitting(&ended.stdout);
        assert!(lines.len() >= 3, "{}", ended.stdout);
        let last = &lines[lines.len() - 1];
        assert_eq!(last["final"], Value::Bool(true));
        let unlimited = |meter: &Value| meter["way"] == "upload" && meter["limit"].is_null();
        let meters = last["meters"].as_array().cloned().unwrap_or_default();
        assert_eq!(
            meters.iter().filter(|meter| unlimited(meter)).count(),
            2,
            "{last}"
        );
        let known = |address: &Value| address["address"] == "172.16.1.150";
        let addresses = last["addresses"].as_array().cloned().unwrap_or_default();
        let client = addresses.iter().find(|address| known(address));
        assert_eq!(
            client.map(|client| &client["class"]),
            Some(&Value::from("rest")),
            "{last}"
        );
    });
}

#[test]
fn netserver_speaks_first_and_never_among_the_json() {
    let name = "netserver_speaks_first_and_never_among_the_json";
    if Command::new("iperf3").arg("--version").output().is_err() {
        return testbed::skip(name, "iperf3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let netserver = Netserver::listening();
        let end = |arguments: &[&str]| {
            let mut command = tool(&[&["--duration", "0.2"], arguments].concat());
            netserver.in_path_of(&mut command);
            let tool = sandbox.start_with(command, Input::AtEnd, Output::Read);
            let ended = tool.finish(Duration::from_secs(10));
            ended.assert_code(0);
            ended
        };
        let introduction = format!(
            "{}Network ready. Create a shell in the wan0 namespace and test with netperf\n",
            format!("{LINE}\n").repeat(5)
        );
        let plain = end(&[]);
        assert!(plain.stdout.starts_with(&introduction), "{}", plain.stdout);
        let json = end(&["--json"]);
        assert!(json.stderr.starts_with(&introduction), "{}", json.stderr);
        for line in json.stdout.lines() {
            let _: Value = step(format!("parse {line}"), serde_json::from_str(line));
        }
    });
}

#[test]
fn the_picture_fits_80_columns() {
    sandbox::run("the_picture_fits_80_columns", |sandbox| {
        let command = tool(&["--interval", "200ms", "--duration", "1"]);
        let tool = sandbox.start_with(command, Input::AtEnd, Output::Read);
        let ended = tool.finish(Duration::from_secs(10));
        ended.assert_code(0);
        let pictures: Vec<&str> = ended.stdout.split("\n\n").collect();
        assert!(pictures.len() >= 3, "{}", ended.stdout);
        for line in ended.stdout.lines() {
            assert!(
                line.chars().count() <= 80,
                "{} columns: {line}",
                line.chars().count()
            );
        }
        assert!(
            ended.stdout.contains("neighbor download  128kbit"),
            "{}",
            ended.stdout
        );
    });
}
