//! What the man pages say beside what the command lines do: examples, signals, files, other pages.

use clap::{ArgMatches, Command, CommandFactory};
use netbpf::{neighbor_sharing, tcp_hold, tokenbucket, tunnel_monitor, vlan_learning};

/// A term and what it means, or a command line and what it does.
type Entry = (&'static str, &'static str);

/// A tool, and what its pages say.
pub struct Tool {
    /// Of its binary.
    pub name: &'static str,
    /// From the top of the repository.
    pub document: &'static str,
    parse: fn() -> Command,
    /// The ways to use it, a line each.
    pub usage: &'static str,
    /// Sections between options and exit status.
    pub sections: &'static [(&'static str, &'static [Entry])],
    examples: &'static [Entry],
    /// Pages and their sections.
    pub see_also: &'static [Entry],
}

impl Tool {
    /// Its command line, complete with the commands in it.
    pub fn command(&self) -> Command {
        let mut command = (self.parse)().disable_help_subcommand(true);
        command.build();
        command
    }

    /// That of its binary.
    pub fn version(&self) -> String {
        let command = (self.parse)();
        command.get_version().unwrap_or_default().to_owned()
    }

    /// Command lines that begin as those of this command do, and what they do.
    pub fn examples_of<'a>(&'a self, command: &'a Command) -> impl Iterator<Item = Entry> + 'a {
        let page = command.get_bin_name().unwrap_or(self.name);
        self.examples.iter().copied().filter(move |(line, _)| {
            let words = arguments(line);
            self.words_of_commands(&words).starts_with(page)
        })
    }

    /// The tool and the commands that a command line names: `tokenbucket set`.
    fn words_of_commands(&self, words: &[&str]) -> String {
        let mut text = self.name.to_owned();
        let Ok(matches) = (self.parse)().try_get_matches_from(words) else {
            return text;
        };
        let mut inner: Option<(&str, &ArgMatches)> = matches.subcommand();
        while let Some((name, matches)) = inner {
            text.push_str(&format!(" {name}"));
            inner = matches.subcommand();
        }
        text
    }
}

/// The words of a command line, without what runs it as root or in a namespace.
fn arguments(line: &str) -> Vec<&str> {
    let line = line.trim_start_matches("sudo ");
    let line = line.trim_start_matches("ip netns exec ns0 ");
    let words = line.split_whitespace();
    words.map(|word| word.trim_matches('\'')).collect()
}

const ENDS: Entry = (
    "SIGINT, SIGTERM, SIGHUP",
    "End it, as Enter does; everything is undone.",
);
const CONFIRMS: Entry = (
    "SIGUSR1",
    "Confirms what --confirm would undo, as Enter does.",
);
const LEDGER: &str = "What a simulation has made, while it is up: the next start removes what a killed \
                      one has left.";

/// All of them.
pub fn all() -> [Tool; 6] {
    [
        Tool {
            name: "neighbor_sharing",
            document: "docs/neighbor_sharing.md",
            parse: neighbor_sharing::Arguments::command,
            usage: "neighbor_sharing [--demo] [OPTIONS]\n\
                    neighbor_sharing --wan IF --neighbor IF... [--lan IF...] [OPTIONS]",
            sections: &[
                ("SIGNALS", &[ENDS, CONFIRMS]),
                (
                    "FILES",
                    &[
                        (
                            "/etc/netbpf/neighbor_sharing@IF",
                            "Options of neighbor_sharing@IF.service, where IF is the shared link: \
                             OPTIONS=\"--neighbor eth1\".",
                        ),
                        ("/run/netbpf/neighbor_sharing.json", LEDGER),
                    ],
                ),
            ],
            examples: &[
                (
                    "sudo neighbor_sharing --demo",
                    "Builds a network to try it in, measures both classes for 10 seconds, and ends:",
                ),
                (
                    "sudo neighbor_sharing --wan eth0 --neighbor eth1 --lan eth2 --dry-run --interval 2s",
                    "Counts what it would drop, and drops nothing:",
                ),
                (
                    "sudo neighbor_sharing --wan eth0 --neighbor eth1 --lan eth2 --confirm 60",
                    "Shares the link, and undoes everything unless Enter is pressed within a minute; for \
                     those who come by it themselves:",
                ),
            ],
            see_also: &[
                ("tokenbucket", "8"),
                ("netsetup", "8"),
                ("tc", "8"),
                ("capabilities", "7"),
            ],
        },
        Tool {
            name: "tokenbucket",
            document: "docs/tokenbucket.md",
            parse: tokenbucket::Arguments::command,
            usage: "tokenbucket [--demo] [OPTIONS]\n\
                    tokenbucket --iface IF... [--pin] [OPTIONS]\n\
                    tokenbucket --explain PCAP [OPTIONS]\n\
                    tokenbucket set --iface IF [--tokens N] [--rate RATE] [--burst SIZE]\n\
                    tokenbucket status|detach --iface IF",
            sections: &[
                ("SIGNALS", &[ENDS, CONFIRMS]),
                (
                    "FILES",
                    &[
                        (
                            "/etc/netbpf/tokenbucket@IF",
                            "Options of tokenbucket@IF.service, if there are any: \
                             OPTIONS=\"--rate 1mbit --burst 32kb\".",
                        ),
                        (
                            "/sys/fs/bpf/netbpf",
                            "What --pin leaves in the kernel; tokenbucket detach removes it.",
                        ),
                        ("/run/netbpf/tokenbucket.json", LEDGER),
                    ],
                ),
            ],
            examples: &[
                (
                    "sudo tokenbucket --iface eth0 --tokens 100 --rate 50/s --dry-run --interval 2s",
                    "Counts what it would drop, and drops nothing:",
                ),
                (
                    "sudo tokenbucket --iface eth0 --rate 1mbit --burst 32kb --key src/24,/56",
                    "Lets every network of that size send 1 Mbit/s:",
                ),
                (
                    "sudo tokenbucket --explain yesterday.pcap --rate 20/s",
                    "Says of each packet of a capture what would become of it, and why:",
                ),
                (
                    "sudo tokenbucket --iface eth0 --trace-drops drops.pcapng",
                    "Writes what it drops to a file for Wireshark, with the reason as each packet's comment:",
                ),
                (
                    "sudo tokenbucket set --iface eth0 --rate 2mbit",
                    "Changes the rule of an instance that runs, at once:",
                ),
                (
                    "sudo tokenbucket status --iface eth0",
                    "Shows what it has counted:",
                ),
                (
                    "sudo tokenbucket detach --iface eth0",
                    "Ends it, and removes what it has left in the kernel:",
                ),
            ],
            see_also: &[
                ("neighbor_sharing", "8"),
                ("netsetup", "8"),
                ("tc", "8"),
                ("tc-tbf", "8"),
                ("capabilities", "7"),
            ],
        },
        Tool {
            name: "vlan_learning",
            document: "docs/vlan_learning.md",
            parse: vlan_learning::Arguments::command,
            usage: "vlan_learning [--demo] [OPTIONS]\n\
                    vlan_learning --trunk IF --map MAC=IF... [OPTIONS]\n\
                    vlan_learning [--trunk IF] --config FILE [OPTIONS]",
            sections: &[
                (
                    "SIGNALS",
                    &[
                        ENDS,
                        (
                            "SIGHUP with --config",
                            "Reads the file again while frames flow. A file that cannot be used changes \
                             nothing.",
                        ),
                        CONFIRMS,
                    ],
                ),
                (
                    "FILES",
                    &[
                        (
                            "/etc/netbpf/vlan_learning@IF.toml",
                            "The clients of vlan_learning@IF.service, where IF is the trunk, as --config \
                             reads them. Everybody has to be allowed to read it.",
                        ),
                        (
                            "/etc/netbpf/vlan_learning@IF",
                            "Options of that service, if there are any: OPTIONS=\"--no-move\".",
                        ),
                        ("/run/netbpf/vlan_learning.json", LEDGER),
                    ],
                ),
            ],
            examples: &[
                (
                    "sudo vlan_learning --demo",
                    "Builds a network to try it in, and ends when its clients have fetched their pages:",
                ),
                (
                    "sudo vlan_learning --trunk eth0 --map 02:00:00:00:00:01=veth1 --interval 2s",
                    "Brings what this client sends, in whatever VLAN it is, to veth1, and back:",
                ),
                (
                    "sudo vlan_learning --config clients.toml --unknown drop --no-move",
                    "Takes the clients from a file, lets nobody else in, and keeps everybody in the VLAN \
                     that he was first seen in:",
                ),
            ],
            see_also: &[
                ("netsetup", "8"),
                ("ip-link", "8"),
                ("bridge", "8"),
                ("capabilities", "7"),
            ],
        },
        Tool {
            name: "tunnel_monitor",
            document: "docs/tunnel_monitor.md",
            parse: tunnel_monitor::Arguments::command,
            usage: "tunnel_monitor [OPTIONS]\n\
                    tunnel_monitor --iface IF... [OPTIONS]\n\
                    tunnel_monitor top [--connect URL | --iface IF...] [OPTIONS]\n\
                    tunnel_monitor traffic [OPTIONS]",
            sections: &[
                ("SIGNALS", &[ENDS]),
                (
                    "FILES",
                    &[
                        (
                            "/etc/netbpf/tunnel_monitor@IF",
                            "Options of tunnel_monitor@IF.service, if there are any: \
                             OPTIONS=\"--port 4789,8472\".",
                        ),
                        ("/run/netbpf/tunnel_monitor.json", LEDGER),
                    ],
                ),
            ],
            examples: &[
                (
                    "sudo tunnel_monitor --iface eth0 'vx*' --interval 5s",
                    "Watches these interfaces and those that come under such a name; the page is at \
                     http://127.0.0.1:8080/:",
                ),
                (
                    "tunnel_monitor top --connect http://127.0.0.1:8080",
                    "Shows on this terminal what a running monitor sees:",
                ),
                (
                    "sudo tunnel_monitor top --iface eth0",
                    "Does the same without one:",
                ),
                (
                    "sudo tunnel_monitor traffic --heavy host3",
                    "Sends through the tunnels of a simulation that runs; one client sends much more than \
                     all others:",
                ),
            ],
            see_also: &[("netsetup", "8"), ("ip-link", "8"), ("capabilities", "7")],
        },
        Tool {
            name: "tcp_hold",
            document: "docs/tcp_hold.md",
            parse: tcp_hold::Arguments::command,
            usage: "tcp_hold [OPTIONS]\n\
                    tcp_hold client|server COUNT HANDLER SIZE ADDR:PORT [SLEEP_MS] [--hold] [OPTIONS]\n\
                    tcp_hold net-up [--uplink IF]\n\
                    tcp_hold net-down\n\
                    tcp_hold agent SOCKET --iface IF... [OPTIONS]\n\
                    tcp_hold lockstep INTERVAL_MS [--iface IF] [OPTIONS]\n\
                    tcp_hold plug up|next|down [--iface IF]",
            sections: &[
                (
                    "ENVIRONMENT",
                    &[
                        ("HOOK", "With client and server: 1 is --hold."),
                        ("COUNT", "With client and server: N is --duration N."),
                    ],
                ),
                ("SIGNALS", &[ENDS]),
                (
                    "FILES",
                    &[
                        (
                            "/run/tcp_hold/IF/agent",
                            "The socket of tcp_hold-agent@IF.service, of mode 0660.",
                        ),
                        (
                            "/etc/netbpf/tcp_hold-agent@IF",
                            "Options of that service, if there are any: OPTIONS=\"--mode 0666\".",
                        ),
                        (
                            "/run/netbpf/tcp_hold.json",
                            "What net-up has made: net-down removes it.",
                        ),
                    ],
                ),
            ],
            examples: &[
                (
                    "sudo tcp_hold",
                    "Builds a network to try it in, and shows what holding costs:",
                ),
                (
                    "sudo tcp_hold net-up",
                    "Builds that network, and leaves it up:",
                ),
                (
                    "tcp_hold server 32 ping 16 0.0.0.0:23324",
                    "Waits for 32 connections, and asks; it needs no privilege:",
                ),
                (
                    "sudo ip netns exec ns0 tcp_hold client 32 echo 16 192.168.100.100:23324 --hold",
                    "Answers, and lets nothing be acknowledged before its answer:",
                ),
                ("sudo tcp_hold net-down", "Takes the network down:"),
                (
                    "sudo tcp_hold agent /run/tcp_hold.sock --iface eth0 --mode 0666",
                    "Holds connections of programs in other languages, whoever they run as:",
                ),
                (
                    "sudo tcp_hold lockstep 50 --iface inner0",
                    "Holds what leaves inner0, and lets it go in epochs of 50 milliseconds:",
                ),
                (
                    "sudo tcp_hold plug next --iface inner0",
                    "Begins the next epoch by hand, and lets the one before go:",
                ),
            ],
            see_also: &[
                ("netsetup", "8"),
                ("tcp", "7"),
                ("tc", "8"),
                ("capabilities", "7"),
            ],
        },
        Tool {
            name: "netsetup",
            document: "README.md",
            parse: netsetup::arguments::Arguments::command,
            usage: "netsetup up|down TOPOLOGY\n\
                    netsetup list [TOPOLOGY]",
            sections: &[(
                "FILES",
                &[(
                    "/run/netbpf/NAME.json",
                    "What belongs to a topology that is up, or was left by a killed tool. Only what is in \
                     there is ever removed.",
                )],
            )],
            examples: &[
                (
                    "sudo netsetup up neighbor_sharing",
                    "Builds a network, and leaves it up:",
                ),
                ("netsetup list", "Shows which there are, and which are up:"),
                (
                    "sudo netsetup down neighbor_sharing",
                    "Removes it, and nothing else:",
                ),
            ],
            see_also: &[
                ("neighbor_sharing", "8"),
                ("tokenbucket", "8"),
                ("vlan_learning", "8"),
                ("tunnel_monitor", "8"),
                ("tcp_hold", "8"),
                ("ip-netns", "8"),
            ],
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for tool in all() {
            assert!(!tool.examples.is_empty(), "{}", tool.name);
            for (line, _) in tool.examples {
                let words = arguments(line);
                assert_eq!(words.first(), Some(&tool.name), "{line}");
                let parsed = (tool.parse)().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }

    /// So that no page shows an option that is not there any more.
    #[test]
    fn usages_name_options_that_there_are() {
        for tool in all() {
            for line in tool.usage.lines() {
                let words: Vec<_> = line.split([' ', '[', ']', '.']).collect();
                assert_eq!(words.first(), Some(&tool.name), "{line}");
                let command = tool.command();
                let inner = words[1].split('|').next();
                let inner = inner.and_then(|name| command.find_subcommand(name));
                let command = inner.unwrap_or(&command);
                for word in words.iter().filter_map(|word| word.strip_prefix("--")) {
                    let mut options = command.get_arguments();
                    let is_there = options.any(|option| option.get_long() == Some(word));
                    assert!(is_there, "{line}: --{word}");
                }
            }
        }
    }

    #[test]
    fn a_page_has_the_examples_of_its_own_command() {
        let [_, tokenbucket, ..] = all();
        let command = tokenbucket.command();
        let of = |command: &Command| tokenbucket.examples_of(command).count();
        assert_eq!(of(&command), tokenbucket.examples.len());
        let set = command.find_subcommand("set").unwrap();
        let lines: Vec<_> = tokenbucket.examples_of(set).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].0.contains("tokenbucket set "), "{lines:?}");
    }

    #[test]
    fn every_document_and_every_page_of_ours_is_there() {
        let tools = all();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
        for tool in &tools {
            let path = format!("{root}{}", tool.document);
            assert!(std::path::Path::new(&path).is_file(), "{path}");
            for (page, section) in tool.see_also {
                assert_ne!(*page, tool.name);
                let ours = tools.iter().any(|tool| tool.name == *page);
                let others = [
                    "bridge",
                    "capabilities",
                    "ip-link",
                    "ip-netns",
                    "tc",
                    "tc-tbf",
                    "tcp",
                ];
                let theirs = others.contains(page);
                assert!(ours != theirs, "{page}({section})");
            }
        }
    }
}
