//! Which client belongs to which worker: from the command line, or from a file.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Result;
use serde::Deserialize;
use toml::Spanned;

use crate::Failure;
use crate::mac::Mac;
use crate::settings::{self, At, Named, Source};

/// Bytes of a file: 65,536 clients with everything that can be said of them.
const LARGEST_FILE: u64 = 16 << 20;

/// Where a client belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The interface of its worker.
    pub worker: String,
    /// Its address, where it is known: a worker cannot tell two clients with one address apart.
    pub address: Option<IpAddr>,
}

/// Everybody that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// By MAC address.
    pub clients: BTreeMap<Mac, Entry>,
    /// Whose address it is, at which worker.
    addresses: HashMap<(IpAddr, String), Mac>,
}

/// `MAC=IF` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair(Mac, String);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Pair, String> {
        let (mac, worker) = text
            .split_once('=')
            .filter(|(_, worker)| !worker.is_empty())
            .ok_or_else(|| format!("'{text}' is no MAC=INTERFACE"))?;
        Ok(Pair(host(mac)?, worker.to_owned()))
    }
}

fn host(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse()?;
    mac.of_host()
        .ok_or_else(|| format!("{mac} is no address of one host"))
}

/// What to do with frames that are nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They go on as without us.
    Pass,
    /// They are dropped.
    Drop,
    /// They go to this interface, tags and all.
    To(String),
}

impl FromStr for Unknown {
    type Err = String;

    fn from_str(text: &str) -> Result<Unknown, String> {
        Ok(match text {
            "" => return Err("it is pass, drop or an interface".into()),
            "pass" => Unknown::Pass,
            "drop" => Unknown::Drop,
            interface => Unknown::To(interface.to_owned()),
        })
    }
}

/// What to do with frames without a tag.
#[derive(clap::ValueEnum, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Untagged {
    /// They go on as without us
    Pass,
    /// They are dropped
    Drop,
}

/// A file of `--config`; what it leaves out is up to the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The interface of the trunk.
    pub trunk: Option<String>,
    /// What happens to frames from MAC addresses that are not configured.
    pub unknown: Option<Unknown>,
    /// What happens to frames without a tag.
    pub untagged: Option<Untagged>,
    /// Whether clients stay in the VLAN that they were first seen in.
    pub no_move: Option<bool>,
    /// Who belongs where.
    pub mapping: Mapping,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    trunk: Option<String>,
    unknown: Option<Spanned<String>>,
    untagged: Option<Untagged>,
    no_move: Option<bool>,
    clients: Named<Place>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a client is to have an interface, or { worker = \"IF\", address = \"IP\" }"
)]
enum Place {
    Worker(String),
    #[serde(rename_all = "lowercase")]
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    worker: String,
    address: Option<IpAddr>,
}

impl From<&Place> for Entry {
    fn from(place: &Place) -> Entry {
        let (worker, address) = match place {
            Place::Worker(worker) => (worker, None),
            Place::Full(Full { worker, address }) => (worker, *address),
        };
        Entry {
            worker: worker.clone(),
            address,
        }
    }
}

impl Settings {
    /// Reads a file; errors have its name and line.
    pub fn read(path: &str) -> Result<Settings, Failure> {
        let text = settings::read(path, "table of clients", LARGEST_FILE)?;
        let text =
            text.ok_or_else(|| settings::in_one_line(&format!("there is no file {path}")))?;
        Settings::parse(path, &text)
    }

    /// The settings of a text, from a file of this name.
    #[doc(hidden)]
    pub fn parse(file: &str, text: &str) -> Result<Settings, Failure> {
        let source = Source { file, text };
        let document: Document = source.document()?;
        let mut mapping = Mapping::default();
        let Named(clients) = &document.clients;
        for (key, place) in clients {
            let mac = host(key.as_ref()).at(&source, key.span())?;
            mapping
                .add(mac, place.as_ref().into())
                .at(&source, key.span())?;
        }
        let unknown = document.unknown.map(|text| {
            let parsed = text.as_ref().parse::<Unknown>();
            parsed.at(&source, text.span())
        });
        Ok(Settings {
            trunk: document.trunk,
            unknown: unknown.transpose()?,
            untagged: document.untagged,
            no_move: document.no_move,
            mapping,
        })
    }
}

impl Mapping {
    /// Of the command line.
    pub fn of_pairs(pairs: &[Pair]) -> Result<Mapping, Failure> {
        let mut mapping = Mapping::default();
        for Pair(mac, worker) in pairs {
            let entry = Entry {
                worker: worker.clone(),
                address: None,
            };
            mapping.add(*mac, entry).map_err(Failure::Usage)?;
        }
        Ok(mapping)
    }

    /// Adds a client; refuses one that is there already, and two with one address at one worker.
    pub fn add(&mut self, mac: Mac, entry: Entry) -> Result<(), String> {
        if let Some(known) = self.clients.get(&mac) {
            let worker = &known.worker;
            return Err(format!("{mac} is there already, with worker {worker}"));
        }
        if let Some(address) = entry.address {
            let worker = &entry.worker;
            let other = *self
                .addresses
                .entry((address, worker.clone()))
                .or_insert(mac);
            if other != mac {
                return Err(format!(
                    "{mac} and {other} cannot both have {address} at one worker, {worker}: it could \
                     not tell them apart"
                ));
            }
        }
        self.clients.insert(mac, entry);
        Ok(())
    }

    /// The interfaces of all workers, each once.
    pub fn workers(&self) -> impl Iterator<Item = &str> {
        let names = self.clients.values().map(|entry| entry.worker.as_str());
        names.collect::<std::collections::BTreeSet<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Settings::parse("c.toml", text).unwrap_err().to_string()
    }

    /// In a moment: whoever looked through all of them for each would take a minute.
    #[test]
    fn a_file_may_have_as_many_clients_as_there_is_room_for() {
        let client = |number: u32, address: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            let address = std::net::Ipv4Addr::from(0x0a00_0000 | address);
            format!(
                "'02:00:00:{a:02x}:{b:02x}:{c:02x}' = {{ worker = 'w0', address = '{address}' }}\n"
            )
        };
        let clients: String = (0..65_536).map(|number| client(number, number)).collect();
        let text = format!("[clients]\n{clients}");
        let settings = Settings::parse("c.toml", &text).unwrap();
        assert_eq!(settings.mapping.clients.len(), 65_536);
        assert_eq!(
            refusal(&(text + &client(65_536, 0))),
            "c.toml:65538: 02:00:00:01:00:00 and 02:00:00:00:00:00 cannot both have 10.0.0.0 at one worker, \
             w0: it could not tell them apart"
        );
    }

    #[test]
    fn a_file_says_who_belongs_where() {
        let settings = Settings::parse(
            "c.toml",
            r#"
            trunk = "eth0"
            unknown = "br7"
            untagged = "drop"
            no_move = true
            [clients]
            "02:00:00:00:00:01" = "worker0a"
            "0200.0000.0002" = { worker = "worker1a", address = "172.16.1.100" }
            "#,
        )
        .unwrap();
        assert_eq!(settings.trunk.as_deref(), Some("eth0"));
        assert_eq!(settings.unknown, Some(Unknown::To("br7".into())));
        assert_eq!(settings.untagged, Some(Untagged::Drop));
        assert_eq!(settings.no_move, Some(true));
        let clients: Vec<(String, &str, Option<IpAddr>)> = settings
            .mapping
            .clients
            .iter()
            .map(|(mac, entry)| (mac.to_string(), entry.worker.as_str(), entry.address))
            .collect();
        let address = "172.16.1.100".parse().ok();
        assert_eq!(
            clients,
            [
                ("02:00:00:00:00:01".into(), "worker0a", None),
                ("02:00:00:00:00:02".into(), "worker1a", address),
            ]
        );
        assert_eq!(
            settings.mapping.workers().collect::<Vec<_>>(),
            ["worker0a", "worker1a"]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases = [
            ("", "c.toml:1: missing field `clients`"),
            (
                "[clients]\n\"02:00\" = \"a\"",
                "c.toml:2: '02:00' is no MAC address (write it as 02:00:00:00:00:01)",
            ),
            (
                "[clients]\n\n\"ff:ff:ff:ff:ff:ff\" = \"a\"",
                "c.toml:3: ff:ff:ff:ff:ff:ff is no address of one host",
            ),
            (
                "[clients]\n\"02:00:00:00:00:01\" = \"a\"\n\"020000000001\" = \"b\"",
                "c.toml:3: 02:00:00:00:00:01 is there already, with worker a",
            ),
            (
                "[clients]\n\"02:00:00:00:00:01\" = { worker = \"a\", address = \"::1\" }\n\
                 \"02:00:00:00:00:02\" = { worker = \"a\", address = \"::1\" }",
                "c.toml:3: 02:00:00:00:00:02 and 02:00:00:00:00:01 cannot both have ::1 at one \
                 worker, a: it could not tell them apart",
            ),
            (
                "[clients]\n\"02:00:00:00:00:01\" = 7",
                "c.toml:2: a client is to have an interface, or { worker = \"IF\", address = \
                 \"IP\" }",
            ),
            (
                "unknown = \"\"\n[clients]",
                "c.toml:1: it is pass, drop or an interface",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal(text), expected, "{text}");
        }
        assert!(refusal("unknwon = 1\n[clients]").starts_with("c.toml:1: unknown field"));
        assert!(refusal("untagged = \"keep\"\n[clients]").starts_with("c.toml:1: unknown variant"));
    }

    #[test]
    fn two_workers_may_have_clients_with_one_address() {
        let text = "[clients]\n\"02:00:00:00:00:01\" = { worker = \"a\", address = \"::1\" }\n\
                    \"02:00:00:00:00:02\" = { worker = \"b\", address = \"::1\" }";
        assert!(Settings::parse("c.toml", text).is_ok());
    }

    #[test]
    fn pairs_of_the_command_line() {
        let pair: Pair = "02:00:00:00:00:01=worker0a".parse().unwrap();
        let mapping = Mapping::of_pairs(std::slice::from_ref(&pair)).unwrap();
        assert_eq!(mapping.workers().collect::<Vec<_>>(), ["worker0a"]);
        let twice = Mapping::of_pairs(&[pair.clone(), pair]).unwrap_err();
        assert!(twice.to_string().contains("is there already"), "{twice}");
        for text in ["", "=", "02:00:00:00:00:01", "02:00:00:00:00:01=", "x=y"] {
            assert!(text.parse::<Pair>().is_err(), "{text}");
        }
    }
}
