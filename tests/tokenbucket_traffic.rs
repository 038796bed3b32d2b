//! The senders of tokenbucket's simulation on its network, with no program attached: what they send
//! arrives, what does not arrive is not counted, and they end without a trace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netbpf::tokenbucket::traffic::{Tally, Traffic};
use netsetup::topology::tokenbucket::{self, Network};
use testbed::namespace::Place;
use testbed::{sandbox, step, threads};

/// Long enough for a second packet of the slowest sender.
const SOON: Duration = Duration::from_secs(5);
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The tests look at the threads of this process, so one of them runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build() -> Network {
    step("build the network", tokenbucket::build(&mut |_| Ok(())))
}

/// What the senders have done once all of them have sent two packets.
#[track_caller]
fn two_of_each(traffic: &Traffic) -> Vec<Tally> {
    let deadline = Instant::now() + SOON;
    loop {
        let tallies = step("look at the senders", traffic.so_far());
        if tallies.iter().all(|tally| tally.sent >= 2) {
            return tallies;
        }
        assert!(Instant::now() < deadline, "{tallies:?}");
        sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn stop(traffic: Traffic) -> Vec<Tally> {
    let start = Instant::now();
    let tallies = step("stop the senders", traffic.stop());
    assert!(start.elapsed() < ENDS_WITHIN, "{:?}", start.elapsed());
    tallies
}

/// The effective capabilities of each sender's thread in this process, by the thread's name.
fn capabilities() -> BTreeMap<String, String> {
    threads::capabilities("sender")
}

#[test]
fn every_packet_of_every_sender_arrives_and_the_threads_end() {
    let _alone = alone();
    let name = "every_packet_of_every_sender_arrives_and_the_threads_end";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let network = build();
        for over_ipv6 in [false, true] {
            let traffic = if over_ipv6 {
                Traffic::start_over_ipv6(&network).unwrap()
            } else {
                Traffic::start(&network).unwrap()
            };
            let so_far = two_of_each(&traffic);
            let none = "0000000000000000";
            let threads = ["sender0", "sender1", "sender2"].map(|name| (name.into(), none.into()));
            assert_eq!(capabilities(), BTreeMap::from(threads));
            let tallies = stop(traffic);
            assert_eq!(capabilities(), BTreeMap::new());

            let expected = [("ping", 1.0), ("ping", 5.0), ("UDP", 20.0)];
            assert_eq!(tallies.len(), expected.len());
            let hosts = network.senders().iter();
            for ((tally, host), (what, per_second)) in tallies.iter().zip(hosts).zip(expected) {
                assert_eq!(tally.sender, host.namespace);
                assert_eq!((tally.what, tally.per_second), (what, per_second));
                let source: IpAddr = if over_ipv6 {
                    host.ipv6.into()
                } else {
                    host.ipv4.into()
                };
                assert_eq!(tally.source, source);
                assert_eq!(tally.arrived, tally.sent, "{tally:?}");
                // Never above the pace; a busy machine may leave slots out.
                let slots = tally.span.as_secs_f64() * per_second;
                assert!((tally.sent - 1) as f64 <= slots + 0.5, "{tally:?}");
            }
            for (earlier, tally) in so_far.iter().zip(&tallies) {
                assert!(earlier.arrived <= earlier.sent, "{earlier:?}");
                assert!(earlier.sent <= tally.sent, "{earlier:?}, then {tally:?}");
            }
        }
        drop(Traffic::start(&network).unwrap());
        assert_eq!(capabilities(), BTreeMap::new());
        network.close().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the traffic");
    });
}

#[test]
fn what_does_not_arrive_is_not_counted() {
    let _alone = alone();
    sandbox::run("what_does_not_arrive_is_not_counted", |_| {
        let network = build();
        // Nobody has this address: what goes there is lost on the way.
        let nobody = format!(
            "neighbor replace {} lladdr 02:00:5e:00:53:01 dev eth0",
            network.receiver().ipv4
        );
        for sender in ["sender1", "sender2"] {
            Place::named(sender).ip(&nobody);
        }
        let traffic = Traffic::start(&network).unwrap();
        two_of_each(&traffic);
        let [first, second, third] = stop(traffic).try_into().unwrap();
        assert_eq!(first.arrived, first.sent, "{first:?}");
        assert_eq!((second.arrived, third.arrived), (0, 0));
        network.close().unwrap();
    });
}

#[test]
fn a_sender_that_cannot_go_on_says_why() {
    let _alone = alone();
    sandbox::run("a_sender_that_cannot_go_on_says_why", |_| {
        let network = build();
        let traffic = Traffic::start(&network).unwrap();
        two_of_each(&traffic);
        Place::named("sender1").ip("link delete eth0");
        let deadline = Instant::now() + SOON;
        let error = loop {
            match traffic.so_far() {
                Ok(tallies) => assert!(Instant::now() < deadline, "{tallies:?}"),
                Err(error) => break error.to_string(),
            }
            sleep(Duration::from_millis(20));
        };
        let expected = "sender1 stopped: send a packet: ENETUNREACH: Network is unreachable";
        assert_eq!(error, expected);
        assert_eq!(traffic.stop().unwrap_err().to_string(), expected);
        assert_eq!(capabilities(), BTreeMap::new());

        let error = Traffic::start(&network).unwrap_err();
        let text = format!("{error:#}");
        let expected = "open a raw socket from 172.16.2.101 (sender1) to 172.16.2.5: ";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(capabilities(), BTreeMap::new());
        network.close().unwrap();
    });
}
