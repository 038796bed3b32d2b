//! Exact removal of what a ledger lists: each object has to prove itself ours, by more than its
//! name. What is gone already, or has become somebody else's, is passed over.

use std::os::fd::BorrowedFd;

use anyhow::{Result, anyhow};

use crate::failure::say;
use crate::ip::{self, LinkState, Place};
use crate::ledger::{Object, Record};
use crate::{link, namespace, nat, random};

/// Removes the network, and its ledger. What could not be removed stays in the ledger, for the
/// next start.
///
/// Links go before namespaces: a veth that is left to the end of its namespace lingers for most
/// of a second, during which its name is taken.
pub(crate) fn remove(mut record: Record, lock: BorrowedFd<'_>) -> Result<()> {
    let mut errors = Vec::new();
    let (links, others): (Vec<Object>, Vec<Object>) = std::mem::take(&mut record.objects)
        .into_iter()
        .partition(|object| matches!(object, Object::Link { .. }));
    let mut left = Vec::new();
    if let Err(error) = remove_links(&record, &links, lock) {
        errors.push(error);
        left.extend(links.into_iter().rev());
    }
    for object in others.into_iter().rev() {
        if let Err(error) = remove_other(&object, &record, lock) {
            errors.push(error);
            left.push(object);
        }
    }
    left.reverse();
    record.objects = left;
    let ledger = if record.objects.is_empty() {
        record.forget()
    } else {
        record.store()
    };
    errors.extend(ledger.err());
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    Err(anyhow!(texts.join("; ")))
}

fn remove_other(object: &Object, record: &Record, lock: BorrowedFd<'_>) -> Result<()> {
    let token = &record.token;
    let is_here = || Ok::<bool, anyhow::Error>(namespace::current()? == record.network_namespace);
    match object {
        Object::Link { .. } => Ok(()), // all at once, in remove_links
        Object::Namespace { name, identity } => namespace::remove(name, *identity, token),
        Object::NamespaceDirectory { made } => namespace::remove_directory(*made),
        // In another network namespace there is nothing of them.
        Object::Nat(nat) if is_here()? => nat.remove(token, lock),
        Object::Forwarding if is_here()? => nat::forward(false),
        Object::Nat(_) | Object::Forwarding => Ok(()),
    }
}

fn remove_links(record: &Record, objects: &[Object], lock: BorrowedFd<'_>) -> Result<()> {
    let wanted: Vec<(&str, &link::Identity)> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Link { name, identity } => Some((name.as_str(), identity)),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let here = namespace::current()?;
    if here != record.network_namespace {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let there = record.network_namespace.inode;
        complain(
            &record.name,
            &format!(
                "an earlier run was in another network namespace (inode {there}); if that still \
                 exists, delete there what is left of {}",
                names.join(", ")
            ),
        );
        return Ok(());
    }
    let place = Place {
        namespace: None,
        lock,
    };
    let links = ip::links()?;
    let deletion = ip::batch_to_the_end(&delete_lines(&proved(&wanted, &links))?, place);
    // A link may have gone by itself between the list and its deletion: what counts is the end.
    let left = ip::links()?;
    if !proved(&wanted, &left).is_empty() {
        deletion?;
    }
    refuse_changed(&wanted, &left)
}

/// The links that prove themselves ours, by the names that they have now.
fn proved<'a>(wanted: &[(&str, &link::Identity)], present: &'a [LinkState]) -> Vec<&'a str> {
    present
        .iter()
        .filter(|state| wanted.iter().any(|(_, identity)| identity.is(state)))
        .map(|state| state.ifname.as_str())
        .collect()
}

/// Lines that put the links into a group of their own and delete that: the kernel waits for its
/// readers once, not once for each link (7 links: 50 ms instead of 290).
fn delete_lines(names: &[&str]) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // Groups are 31 bits of anybody's choice, small numbers by hand. Far from those, a random one
    // is ours alone.
    let group = u32::from_ne_bytes(random::bytes()?) & 0x3fff_ffff | 0x4000_0000;
    let mut lines: Vec<String> = names
        .iter()
        .map(|name| format!("link set dev {name} group {group}"))
        .collect();
    lines.push(format!("link delete group {group}"));
    Ok(lines)
}

/// A link of our name and index with another MAC address was ours, most likely, but that is no
/// proof: it stays, and the user is told.
fn refuse_changed(wanted: &[(&str, &link::Identity)], present: &[LinkState]) -> Result<()> {
    let changed: Vec<&str> = wanted
        .iter()
        .filter(|(name, identity)| {
            present.iter().any(|state| {
                state.ifname == *name && state.ifindex == identity.index && !identity.is(state)
            })
        })
        .map(|(name, _)| *name)
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "the MAC address of {} was changed, so it cannot be proved ours; delete it by hand",
        changed.join(", ")
    ))
}

/// Tells the user what a clean-up without a caller could not do.
pub(crate) fn complain(name: &str, what: &str) {
    say(format_args!("{name}: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_state(index: u32, name: &str, mac: &str) -> LinkState {
        let json = format!(r#"{{"ifindex":{index},"ifname":"{name}","address":"{mac}"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn only_proved_links_are_deleted_and_renamed_ones_too() {
        let identity = |index, mac: &str| link::Identity {
            index,
            mac: mac.into(),
        };
        let (bridge, port, gone) = (
            identity(100, "02:00:00:00:00:00"),
            identity(101, "02:00:00:00:00:01"),
            identity(102, "02:00:00:00:00:02"),
        );
        let wanted = [("br100", &bridge), ("wan0a", &port), ("local0a", &gone)];
        let present = [
            link_state(1, "lo", "00:00:00:00:00:00"),
            link_state(100, "renamed", "02:00:00:00:00:00"),
            // A stranger took our index, another one our name.
            link_state(101, "eth7", "52:54:00:00:00:01"),
            link_state(7, "wan0a", "52:54:00:00:00:02"),
        ];
        assert_eq!(proved(&wanted, &present), ["renamed"]);
        refuse_changed(&wanted, &present).unwrap();
    }

    #[test]
    fn a_group_of_their_own_is_deleted() {
        assert_eq!(delete_lines(&[]).unwrap(), [""; 0]);
        let lines = delete_lines(&["br100", "wan0a"]).unwrap();
        let group = lines[2].strip_prefix("link delete group ").unwrap();
        assert!(group.parse::<u32>().unwrap() >= 1 << 30, "{group}");
        let set = |name| format!("link set dev {name} group {group}");
        assert_eq!(lines[..2], [set("br100"), set("wan0a")]);
    }

    #[test]
    fn a_changed_address_is_told() {
        let identity = link::Identity {
            index: 100,
            mac: "02:00:00:00:00:00".into(),
        };
        let present = [link_state(100, "br100", "02:00:00:00:00:99")];
        let error = refuse_changed(&[("br100", &identity)], &present).unwrap_err();
        assert!(error.to_string().contains("br100"), "{error}");
    }
}
