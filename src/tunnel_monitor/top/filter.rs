//! What the user wants to see only.

use std::net::IpAddr;
use std::str::FromStr;

use crate::cidr::Cidr;
use crate::tunnel_monitor::flow::{Encap, Flow};

/// Words that all have to hold: `vxlan 10.0.0.0/24`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// As it was typed.
    text: String,
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// Any of the four addresses.
    Within(Cidr),
    Network(u32),
    Encap(Encap),
    NotIp,
}

impl Filter {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn lets_through(&self, flow: &Flow) -> bool {
        self.words.iter().all(|word| word.holds(flow))
    }
}

impl Word {
    fn holds(&self, flow: &Flow) -> bool {
        match self {
            Word::Within(cidr) => {
                let inner = flow.inner().into_iter().flatten();
                let mut addresses = flow.outer().into_iter().chain(inner);
                addresses.any(|address| cidr.contains(address))
            }
            Word::Network(vni) => flow.vni == *vni,
            Word::Encap(encap) => flow.encap == *encap,
            Word::NotIp => flow.inner().is_none(),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let words: Result<Vec<Word>, String> = text.split_whitespace().map(word).collect();
        Ok(Filter {
            text: text.trim().to_owned(),
            words: words?,
        })
    }
}

fn word(text: &str) -> Result<Word, String> {
    if let Some(encap) = Encap::ALL
        .into_iter()
        .find(|it| it.name().eq_ignore_ascii_case(text))
    {
        return Ok(Word::Encap(encap));
    }
    if text.eq_ignore_ascii_case("notip") {
        return Ok(Word::NotIp);
    }
    if let Ok(vni) = text.parse() {
        return Ok(Word::Network(vni));
    }
    let address = text.split('/').next().unwrap_or_default();
    if address.parse::<IpAddr>().is_err() {
        return Err(format!(
            "'{text}' is no IP, CIDR, VNI or encapsulation (vxlan, geneve, …, notip)"
        ));
    }
    text.parse().map(Word::Within)
}

#[cfg(test)]
mod tests {
    use super::super::examples::flow;
    use super::*;
    use crate::tunnel_monitor::flow::Inner;

    fn lets_through(text: &str) -> bool {
        text.parse::<Filter>().unwrap().lets_through(&flow(2))
    }

    #[test]
    fn a_flow_is_found_by_what_it_is_made_of() {
        for text in [
            "",
            "172.16.0.1",
            "172.16.0.2",
            "10.0.2.1",
            "10.0.2.2",
            "10.0.2.0/24",
            "0.0.0.0/0",
            "10002",
            "vxlan",
            "VXLAN 10002 10.0.0.0/8",
        ] {
            assert!(lets_through(text), "{text}");
        }
        for text in [
            "172.16.0.3",
            "10.0.3.0/24",
            "::/0",
            "10003",
            "10",
            "gre",
            "vxlan 10003",
            "notip",
        ] {
            assert!(!lets_through(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_ip_has_a_word() {
        let arp = Flow {
            inner: Inner::NotIp,
            ..flow(2)
        };
        let filter: Filter = "notip".parse().unwrap();
        assert!(filter.lets_through(&arp));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refusal = |text: &str| text.parse::<Filter>().unwrap_err();
        assert!(refusal("lan").contains("no IP, CIDR, VNI"));
        assert!(refusal("10.0.0.1/24").contains("did you mean"));
        assert!(refusal("99999999999").contains("no IP"));
    }
}
