//! A monitor without a data plane, for what takes hundreds of hosts or thousands of addresses: the tool's
//! own web server, with samples that come each second and that the test makes up.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use netbpf::http;
use netbpf::tunnel_monitor::{Counts, Encap, Flow, Inner, Outer, Sample, web};
use testbed::{Over, step};
use tokio::sync::watch;

use crate::table::{Table, counts};

const SECOND: Duration = Duration::from_secs(1);
/// Samples to a window.
const WINDOW: u64 = 5;
/// Room for flows, as the tool has by default.
const CAPACITY: u32 = 65_536;

/// Flows that carry something each second.
pub struct Traffic {
    flows: Vec<Flow>,
}

impl Traffic {
    /// One flow with each of so many hosts, half of them in 172.16.1.0/24 and half in 172.16.2.0/24.
    pub fn of_hosts(hosts: u32) -> Traffic {
        let flows = (0..hosts).map(|number| {
            let [net, host] = [1 + number % 2, 2 + number / 2].map(|part| part as u8);
            flow(
                10_000 + number % 4,
                Ipv4Addr::new(172, 16, net, host),
                [
                    Ipv4Addr::new(192, 168, net, 1),
                    Ipv4Addr::new(192, 168, net, host),
                ],
            )
        });
        Traffic {
            flows: flows.collect(),
        }
    }

    /// With one host, between so many addresses that are all different.
    pub fn of_addresses(addresses: u32) -> Traffic {
        let flows = (0..addresses / 2).map(|number| {
            let [.., high, low] = number.to_be_bytes();
            let ends = [10, 11].map(|net| Ipv4Addr::new(net, 0, high, low));
            flow(10_000, Ipv4Addr::new(172, 16, 1, 2), ends)
        });
        Traffic {
            flows: flows.collect(),
        }
    }

    /// What a flow carries in a second: the first the most, and never the same twice.
    fn passes(&self, number: usize, second: u64) -> Counts {
        let loudness = (self.flows.len() - number) as u64;
        let packets = 10 * loudness + (second * 7 + number as u64 * 13) % 10;
        counts(packets, 1000 * packets, packets / 2, 400 * packets)
    }

    /// Serves it at 127.0.0.1:8080 while the body runs.
    pub fn serve(&self, body: impl FnOnce()) {
        let mut table = Table::new(&["eth0"]);
        let first = roomy(table.last());
        let (feed, fed) = watch::channel(first);
        let about = web::About {
            namespace: None,
            simulation: false,
            ports: vec![4789],
            interval: SECOND * WINDOW as u32,
            traffic: None,
        };
        let listening = step("listen", http::bind(([127, 0, 0, 1], 8080).into()));
        let _server = step(
            "serve",
            listening.serve(web::router(fed, about), http::Options::default()),
        );
        let is_over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let mut publish = |second: u64| {
                for (number, flow) in self.flows.iter().enumerate() {
                    table.count(number, flow, self.passes(number, second));
                }
                feed.send_replace(roomy(table.sample(second.is_multiple_of(WINDOW))));
            };
            // The first window has ended before anybody looks.
            (1..=WINDOW + 1).for_each(&mut publish);
            scope.spawn(move || {
                for second in WINDOW + 2.. {
                    sleep(SECOND);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    publish(second);
                }
            });
            // Also where the body fails, or its failure would never be told.
            let _over = Over(is_over);
            body();
        });
    }
}

fn roomy(sample: Arc<Sample>) -> Arc<Sample> {
    let mut sample = Arc::unwrap_or_clone(sample);
    sample.capacity = CAPACITY;
    Arc::new(sample)
}

fn flow(vni: u32, remote: Ipv4Addr, [local_inner, remote_inner]: [Ipv4Addr; 2]) -> Flow {
    Flow {
        encap: Encap::Vxlan,
        vni,
        outer: Outer::V4 {
            local: Ipv4Addr::new(172, 16, 0, 1),
            remote,
        },
        inner: Inner::V4 {
            local: local_inner,
            remote: remote_inner,
        },
    }
}
