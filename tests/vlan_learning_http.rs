//! The web servers and the clients of vlan_learning's simulation on its network, each client joined with
//! its worker by a bridge: who answers whom, what strangers can do, and that all of it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{PoisonError, RwLock};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use netbpf::vlan_learning::{Clients, Log, Servers, Tally};
use netsetup::topology::vlan_learning::{self, Network, Plan, Tagger};
use testbed::namespace::Place;
use testbed::tool::AT_ONCE;
use testbed::{sandbox, step, threads};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for clients to have got stuck.
const MOMENT: Duration = Duration::from_millis(100);
/// After which a server closes the connection of a client that says nothing, and of one that says little.
const SILENCE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(10);

/// One test looks at the threads of this process: the others do not run beside it.
static THREADS: RwLock<()> = RwLock::new(());

/// The network of the original, each client on a bridge with its worker; goes when dropped.
struct Joined {
    // Fields go in this order.
    _bridges: Vec<Bridge>,
    network: Network,
}

struct Bridge(String);

impl Bridge {
    fn with(name: String, ports: [&str; 2]) -> Bridge {
        let here = Place::here();
        here.ip(&format!("link add {name} type bridge"));
        here.ip(&format!("link set {name} addrgenmode none up"));
        for port in ports {
            here.ip(&format!("link set {port} master {name}"));
        }
        Bridge(name)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        Place::here().ip(&format!("link delete {}", self.0));
    }
}

impl Joined {
    fn build() -> Joined {
        let plan = Plan {
            tagger: Tagger::Bpf,
            ..Plan::default()
        };
        let network = vlan_learning::build(&plan, &mut |_| Ok(()));
        let network = step("build the network", network);
        let ports = network.clients().iter().filter_map(|client| {
            let worker = &network.workers()[client.worker];
            Some([client.port.as_ref()?.as_str(), &worker.port])
        });
        let bridges = (0..)
            .zip(ports)
            .map(|(i, ports)| Bridge::with(format!("br{i}"), ports));
        Joined {
            _bridges: bridges.collect(),
            network,
        }
    }

    fn serve(&self, log: Log) -> Servers {
        let servers = Servers::start(self, log, &mut |_| Ok(()));
        step("start the servers", servers)
    }

    fn fetch(&self, fetches: u32, every: Duration, log: Log) -> Clients {
        let clients = Clients::start(self, fetches, every, log);
        step("start the clients", clients)
    }

    /// A connection from a client to its worker.
    fn connect(&self, client: usize) -> TcpStream {
        let client = &self.clients()[client];
        let worker = &self.workers()[client.worker];
        let address = SocketAddr::new(worker.ipv4.into(), 80);
        connect(&client.namespace, address)
    }
}

impl std::ops::Deref for Joined {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}

fn connect(from: &str, address: SocketAddr) -> TcpStream {
    let stream = Place::named(from).run(|| TcpStream::connect_timeout(&address, SOON));
    let stream = step(format!("connect {from} to {address}"), stream);
    let bound = stream.set_read_timeout(Some(2 * LONGEST));
    step("bound the reading", bound);
    stream
}

/// All that comes, as far as it comes.
fn rest(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered to these bytes.
fn answer(stream: TcpStream, bytes: &[u8]) -> String {
    step("send a request", (&stream).write_all(bytes));
    rest(&stream)
}

#[track_caller]
fn ended_at_once<T>(what: T) {
    let start = Instant::now();
    drop(what);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[track_caller]
fn wait_until_over(clients: &Clients) -> Vec<Tally> {
    let deadline = Instant::now() + 2 * LONGEST;
    while !clients.are_over() {
        assert!(Instant::now() < deadline, "{:?}", clients.tally());
        sleep(Duration::from_millis(2));
    }
    clients.tally()
}

#[test]
fn every_client_fetches_the_page_of_its_worker_and_all_threads_end() {
    let _alone = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    let name = "every_client_fetches_the_page_of_its_worker_and_all_threads_end";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let network = Joined::build();
        let mut said = Vec::new();
        let mut servers = Servers::start(&network, Log::Quiet, &mut |line| {
            said.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(said, ["Serving HTTP on 0.0.0.0 port 80 ..."; 3]);
        let every = Duration::from_millis(60);
        let start = Instant::now();
        let clients = network.fetch(4, every, Log::Quiet);
        let none = || "0000000000000000".to_owned();
        let names = ["client0", "client1", "client2"];
        assert_eq!(
            threads::capabilities("client"),
            names.map(|name| (name.to_owned(), none())).into()
        );
        assert_eq!(
            threads::capabilities("http"),
            BTreeMap::from([("http".to_owned(), none())])
        );
        let tallies = wait_until_over(&clients);
        // Four, three times so far apart.
        assert!(start.elapsed() >= 3 * every, "{:?}", start.elapsed());
        for (i, tally) in tallies.into_iter().enumerate() {
            let bytes = tally.bytes;
            let expected = Tally {
                client: format!("client{i}"),
                fetched: 4,
                failed: 0,
                bytes,
                workers: BTreeSet::from([format!("worker{i}")]),
            };
            assert_eq!(tally, expected);
            assert!(bytes > 0 && bytes % 4 == 0, "{bytes}");
        }
        ended_at_once(clients);
        servers.check().unwrap();
        ended_at_once(servers);
        assert_eq!(threads::capabilities("client"), BTreeMap::new());
        assert_eq!(threads::capabilities("http"), BTreeMap::new());
        drop(network);
        before.assert_same(&sandbox.snapshot(), "after servers and clients");
    });
}

#[test]
fn a_request_is_answered_however_it_comes() {
    let _beside = THREADS.read();
    sandbox::run("a_request_is_answered_however_it_comes", |_| {
        let network = Joined::build();
        let servers = network.serve(Log::Quiet);
        let whole = answer(network.connect(1), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, page) = whole.split_once("\r\n\r\n").unwrap();
        let length = format!("Content-Length: {}", page.len());
        let lines: Vec<&str> = head.lines().collect();
        assert_eq!(lines[0], "HTTP/1.1 200 OK");
        assert!(lines[1].starts_with("Date: ") && lines[1].ends_with(" GMT"));
        let rest = [
            "Content-Type: text/html; charset=utf-8",
            &length,
            "Connection: close",
        ];
        assert_eq!(lines[2..], rest);
        assert!(page.contains("<h1>worker1</h1>"), "{page}");

        let worker = network.workers()[1].ipv6;
        let over_ipv6 = connect("client1", SocketAddr::new(IpAddr::V6(worker), 80));
        let again = answer(over_ipv6, b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(again.split_once("\r\n\r\n").unwrap().1, page);

        let head_only = answer(network.connect(1), b"HEAD / HTTP/1.1\r\n\r\n");
        assert!(head_only.contains(&length) && head_only.ends_with("\r\n\r\n"));

        // In pieces, and with more than a request.
        let stream = network.connect(2);
        stream.set_nodelay(true).unwrap();
        for piece in "GET / HTTP/1.1\r\n\r".as_bytes().chunks(3) {
            (&stream).write_all(piece).unwrap();
            sleep(Duration::from_millis(5));
        }
        let text = answer(stream, &[b"\n".to_vec(), vec![b'x'; 50_000]].concat());
        assert!(text.contains("<h1>worker2</h1>"), "{text}");

        for (request, status) in [
            (
                &b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"[..],
                "501 Not Implemented",
            ),
            (b"GET /x HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported"),
            (b"\x16\x03\x01\x00\xff\n\r\n", "400 Bad Request"),
            (&[0xff; 9000], "431 Request Header Fields Too Large"),
            (
                &[&b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(20_000)].concat(),
                "431 Request Header Fields Too Large",
            ),
        ] {
            let text = answer(network.connect(0), request);
            let expected = format!("HTTP/1.1 {status}\r\n");
            assert!(text.starts_with(&expected), "{expected}: {text}");
        }

        // One who leaves in the middle, one who says nothing at all, and one who resets.
        let stream = network.connect(0);
        (&stream).write_all(b"GET / HT").unwrap();
        drop(stream);
        drop(network.connect(0));
        let stream = network.connect(0);
        (&stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(stream);
        let text = answer(network.connect(0), b"GET / HTTP/1.1\r\n\r\n");
        assert!(text.contains("<h1>worker0</h1>"), "{text}");
        ended_at_once(servers);
    });
}

#[test]
fn who_says_nothing_or_next_to_nothing_is_cut_off() {
    let _beside = THREADS.read();
    sandbox::run("who_says_nothing_or_next_to_nothing_is_cut_off", |_| {
        let network = Joined::build();
        let servers = network.serve(Log::Quiet);
        let start = Instant::now();
        let silent = network.connect(0);
        // Has its answer, and does not close.
        let idle = network.connect(1);
        (&idle).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let slow = network.connect(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(rest(&silent), "");
                let took = start.elapsed();
                assert!(took >= SILENCE && took < SILENCE + SOON, "{took:?}");
            });
            scope.spawn(|| {
                assert!(rest(&idle).contains("<h1>worker1</h1>"));
                assert!(is_reset(&idle), "still there");
            });
            scope.spawn(|| {
                while (&slow).write_all(b"a").is_ok() {
                    sleep(Duration::from_millis(200));
                }
                let took = start.elapsed();
                assert!(took >= LONGEST && took < LONGEST + SOON, "{took:?}");
            });
        });
        ended_at_once(servers);
    });
}

/// Whether the other side goes altogether, so that nothing arrives there any more.
fn is_reset(mut stream: &TcpStream) -> bool {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if stream.write_all(b"x").is_err() {
            return true;
        }
        sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn a_crowd_makes_the_oldest_go_and_keeps_nobody_out() {
    let _beside = THREADS.read();
    sandbox::run("a_crowd_makes_the_oldest_go_and_keeps_nobody_out", |_| {
        let network = Joined::build();
        let servers = network.serve(Log::Quiet);
        // On one thread: those who say nothing have five seconds.
        let address = SocketAddr::new(network.workers()[0].ipv4.into(), 80);
        let crowd = Place::named("client0").run(|| -> io::Result<Vec<TcpStream>> {
            (0..300)
                .map(|_| TcpStream::connect_timeout(&address, SOON))
                .collect()
        });
        let crowd = step("come in crowds", crowd);
        let clients = network.fetch(5, Duration::ZERO, Log::Quiet);
        for tally in wait_until_over(&clients) {
            assert_eq!((tally.fetched, tally.failed), (5, 0), "{tally:?}");
        }
        // 44 at least had to go, a page at a time some more; all that are there are answered.
        let mut answered = 0;
        for (i, stream) in crowd.iter().enumerate() {
            let mut writer = stream;
            // Who had to go cannot be written to, perhaps.
            let _ = writer.write_all(b"GET / HTTP/1.1\r\n\r\n");
            let is_there = rest(stream).contains("<h1>worker");
            answered += usize::from(is_there);
            assert!(is_there || i < 100, "connection {i}");
            assert!(!is_there || i >= 44, "connection {i}");
        }
        assert!((200..=256).contains(&answered), "{answered}");
        ended_at_once(servers);
    });
}

#[test]
fn an_end_comes_at_once_whatever_they_are_at() {
    let _beside = THREADS.read();
    sandbox::run("an_end_comes_at_once_whatever_they_are_at", |sandbox| {
        let before = sandbox.snapshot();
        let network = Joined::build();
        // While they pause.
        let servers = network.serve(Log::Quiet);
        let clients = network.fetch(1000, Duration::from_secs(60), Log::Quiet);
        let deadline = Instant::now() + SOON;
        while clients.tally().iter().any(|tally| tally.fetched == 0) {
            assert!(Instant::now() < deadline, "{:?}", clients.tally());
        }
        assert!(!clients.are_over());
        let talking = network.connect(0);
        (&talking).write_all(b"GET / ").unwrap();
        ended_at_once(clients);
        ended_at_once(servers);
        assert_eq!(rest(&talking), "");
        drop(talking);

        // While they wait for an answer: these listen, and never accept.
        let address = SocketAddr::new(network.workers()[0].ipv4.into(), 80);
        let at = |worker: &str| Place::named(worker).run(|| TcpListener::bind(address));
        let mute: Vec<TcpListener> = (0..3)
            .map(|i| step("listen", at(&format!("worker{i}"))))
            .collect();
        let clients = network.fetch(1, Duration::ZERO, Log::Quiet);
        sleep(MOMENT);
        ended_at_once(clients);
        drop(mute);

        // While they connect: nobody answers for that address.
        for i in 0..3 {
            let neighbor = "neighbor replace 172.16.1.5 lladdr 02:00:5e:00:53:01 dev eth0";
            Place::named(format!("client{i}")).ip(neighbor);
        }
        let clients = network.fetch(1, Duration::ZERO, Log::Quiet);
        sleep(MOMENT);
        assert!(!clients.are_over());
        ended_at_once(clients);
        drop(network);
        before.assert_same(&sandbox.snapshot(), "after the end");
    });
}

#[test]
fn a_fetch_that_fails_is_counted_and_bounded() {
    let _beside = THREADS.read();
    sandbox::run("a_fetch_that_fails_is_counted_and_bounded", |_| {
        let network = Joined::build();
        // Nobody listens for the first client, nobody answers the second, and the third has a talker.
        let neighbor = "neighbor replace 172.16.1.5 lladdr 02:00:5e:00:53:01 dev eth0";
        Place::named("client1").ip(neighbor);
        let address = SocketAddr::new(network.workers()[2].ipv4.into(), 80);
        let listener = Place::named("worker2").run(|| TcpListener::bind(address));
        let listener = step("listen", listener);
        let start = Instant::now();
        let clients = network.fetch(1, Duration::ZERO, Log::Quiet);
        let (mut talker, _) = listener.accept().unwrap();
        let mut sent = 0;
        // An answer without end.
        while talker.write_all(&[b'x'; 1000]).is_ok() {
            sent += 1000;
            assert!(sent < 64 << 20, "{sent} bytes taken");
        }
        let tallies = wait_until_over(&clients);
        let took = start.elapsed();
        assert!(took >= SILENCE && took < SILENCE + SOON, "{took:?}");
        for tally in tallies {
            assert_eq!((tally.fetched, tally.failed), (0, 1), "{tally:?}");
            assert_eq!((tally.bytes, tally.workers.len()), (0, 0), "{tally:?}");
        }
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    let _beside = THREADS.read();
    sandbox::run("a_port_that_is_taken_is_named", |_| {
        let network = Joined::build();
        let taken = Place::named("worker1").run(|| TcpListener::bind("172.16.1.5:80"));
        let error = Servers::start(&network, Log::Quiet, &mut |_| Ok(())).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "listen on 0.0.0.0:80 in worker1: EADDRINUSE: Address already in use"
        );
        drop(taken);
        drop(network.serve(Log::Quiet));
        let said = Servers::start(&network, Log::Quiet, &mut |_| anyhow::bail!("stop"));
        assert_eq!(said.unwrap_err().to_string(), "stop");
        drop(network.serve(Log::Quiet));
    });
}

/// Environment variable that makes this program the simulation which some tests watch.
const ROLE: &str = "NETBPF_TEST_SERVES_PAGES";

/// The simulation in a process of its own: each line of its input makes every client fetch 300 pages.
fn simulation() -> Child {
    let mut command = Command::new(step("this program", env::current_exe()));
    command
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "role_of_a_simulation",
        ])
        .env(ROLE, "1")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    step("start the simulation", command.spawn())
}

#[test]
#[ignore = "the simulation in other tests, nothing by itself"]
fn role_of_a_simulation() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let network = Joined::build();
    let log = Log::to_stderr();
    let servers = network.serve(log.clone());
    println!("\nready");
    for _ in io::stdin().lines() {
        let clients = network.fetch(300, Duration::ZERO, log.clone());
        let tallies = wait_until_over(&clients);
        let fetched: u64 = tallies.iter().map(|tally| tally.fetched).sum();
        println!("{fetched} fetched");
    }
    ended_at_once(servers);
}

/// Lets the clients fetch once more.
#[track_caller]
fn fetch(simulation: &mut Child, stdout: &mut impl BufRead) {
    let asked = simulation
        .stdin
        .as_mut()
        .map_or(Ok(()), |stdin| stdin.write_all(b"\n"));
    step("ask for more", asked);
    let lines = stdout.lines().map(|line| step("read a line", line));
    let fetched = lines.filter(|line| line.ends_with(" fetched")).take(1);
    assert_eq!(fetched.collect::<Vec<_>>(), ["900 fetched"]);
}

#[track_caller]
fn ended(mut simulation: Child) {
    drop(simulation.stdin.take());
    assert!(step("wait for it", simulation.wait()).success());
}

#[test]
fn who_fetched_what_is_said_in_lines() {
    let _beside = THREADS.read();
    sandbox::run("who_fetched_what_is_said_in_lines", |_| {
        let mut simulation = simulation();
        let stderr = simulation.stderr.take().unwrap();
        let reading = thread::spawn(|| io::read_to_string(stderr).unwrap());
        let mut stdout = BufReader::new(simulation.stdout.take().unwrap());
        fetch(&mut simulation, &mut stdout);
        ended(simulation);
        let text = reading.join().unwrap();
        let (requests, fetches): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("172."));
        assert_eq!((requests.len(), fetches.len()), (900, 900));
        for line in requests {
            let (before, after) = line.split_once('[').unwrap();
            let (date, after) = after.split_once(']').unwrap();
            assert_eq!(before, "172.16.1.100 - - ");
            assert_eq!(after, " \"GET / HTTP/1.1\" 200 -");
            let form: String = date
                .chars()
                .map(|c| match c {
                    '0'..='9' => '9',
                    'A'..='Z' => 'A',
                    'a'..='z' => 'a',
                    other => other,
                })
                .collect();
            assert_eq!(form, "99/Aaa/9999 99:99:99");
        }
        for i in 0..3 {
            let begins = format!("client{i}: worker{i}, 1");
            let own = fetches.iter().filter(|line| line.starts_with(&begins));
            assert_eq!(own.count(), 300, "{begins}");
        }
        for line in fetches {
            let (_, pace) = line.split_once(" bytes in ").unwrap();
            assert!(pace.contains(" ms (") && pace.ends_with("B/s)"), "{line}");
        }
    });
}

#[test]
fn lines_that_nobody_reads_stop_nothing() {
    let _beside = THREADS.read();
    sandbox::run("lines_that_nobody_reads_stop_nothing", |_| {
        // Nobody is there.
        let mut alone = simulation();
        drop(alone.stderr.take());
        let mut stdout = BufReader::new(alone.stdout.take().unwrap());
        fetch(&mut alone, &mut stdout);
        ended(alone);

        // Nobody listens: a pipe holds 64 KiB, and a fetch is two lines of 60 bytes and more.
        let mut ignored = simulation();
        let mut stdout = BufReader::new(ignored.stdout.take().unwrap());
        fetch(&mut ignored, &mut stdout);
        // When somebody does again, he is told what he has missed.
        let stderr = BufReader::new(ignored.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || {
            let lines = stderr.lines().map(|line| line.unwrap());
            lines.for_each(|line| tell.send(line).unwrap());
        });
        fetch(&mut ignored, &mut stdout);
        let quiet = Duration::from_millis(300);
        let mut lines: Vec<String> = std::iter::from_fn(|| told.recv_timeout(quiet).ok()).collect();
        ended(ignored);
        lines.extend(told);
        reading.join().unwrap();
        let left_out: Vec<u64> = lines
            .iter()
            .filter_map(|line| {
                let (count, _) = line.split_once(" lines left out: nobody took")?;
                Some(count.replace(',', "").parse().unwrap())
            })
            .collect();
        let (notes, left_out): (usize, u64) = (left_out.len(), left_out.iter().sum());
        assert!(left_out > 0);
        assert_eq!((lines.len() - notes) as u64 + left_out, 3600);
    });
}
