//! Random frames from clients, strangers and workers, while clients come and go and the policy changes, against a
//! model of the rules in a few lines of Rust: every frame that comes out, where and with which bytes, and
//! everything that is known and counted. BPF_PROG_TEST_RUN has no tags, so the frames take the cables.

use std::collections::BTreeMap;

use netbpf::vlan_learning::{Policy, Verdict};
use testbed::long;

use crate::rig::{
    Arrival, FAR, Known, OTHER, OTHER_FAR, Rig, Setup, TRUNK, Tag, WORKER_MAC, ad, arrival, behind,
    events, far_end, mac, named, port, q, run, tags_of,
};
use crate::seed::Random;

/// In `make check`, and in `make check-long`.
const FRAMES: [usize; 2] = [100_000, 1_000_000];
/// Frames that are sent before anything is looked at: queues are short, above all for copies of broadcasts.
const FROM_CLIENTS: usize = 200;
const FROM_WORKER: usize = 50;
const BROADCASTS: usize = 8;

/// More of one worker's than there are outlets, and a few of another's.
const CLIENTS: u16 = 160;
const STRANGERS: u16 = 20;
const OUTLETS: usize = 64;

/// A frame's tags as far as they are looked at: the outer one and the one behind it.
type Place = Vec<Tag>;

/// Without priorities.
fn place(tags: &[Tag]) -> Place {
    let bare = |tag: &Tag| Tag {
        tci: tag.tci & 0xfff,
        ..*tag
    };
    tags.iter().map(bare).collect()
}

/// As the tool prints it: "6s.5".
fn text(tags: &[Tag]) -> String {
    let one = |tag: &Tag| {
        let kind = if tag.kind == 0x88a8 { "s" } else { "" };
        format!("{}{kind}", tag.tci & 0xfff)
    };
    tags.iter().map(one).collect::<Vec<_>>().join(".")
}

/// Bytes: the kernel has the first tag beside the frame, where it is not counted.
fn counted(frame: &[u8]) -> u64 {
    let beside = tags_of(frame).len().min(1);
    (frame.len() - 4 * beside) as u64
}

#[derive(Default)]
struct Client {
    worker: u32,
    tags: Place,
    is_listed: bool,
    before: Place,
    refused: Place,
    moves: u32,
    refusals: u32,
    rx: (u64, u64),
    tx: (u64, u64),
}

/// Places that clients of a worker are at, how many of them; in a fixed number of rows.
struct Outlets([(Place, u32); OUTLETS]);

impl Default for Outlets {
    fn default() -> Outlets {
        Outlets([const { (Vec::new(), 0) }; OUTLETS])
    }
}

impl Outlets {
    fn leave(&mut self, left: &Place) {
        let row = self
            .0
            .iter_mut()
            .find(|(at, clients)| *clients > 0 && at == left);
        if let Some((_, clients)) = row {
            *clients -= 1;
        }
    }

    /// False where there is no row for it.
    fn join(&mut self, place: &Place) -> bool {
        let rows = &self.0;
        let own = rows
            .iter()
            .position(|(at, clients)| *clients > 0 && at == place);
        let row = own.or_else(|| rows.iter().position(|(_, clients)| *clients == 0));
        let Some(row) = row else {
            return false;
        };
        let (_, before) = self.0[row];
        self.0[row] = (place.clone(), before + 1);
        true
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let used = self.0.iter().filter(|(_, clients)| *clients > 0);
        used.map(|(place, _)| place)
    }
}

/// What the programs are to do, by the document.
struct Model {
    policy: Policy,
    clients: BTreeMap<[u8; 6], Client>,
    outlets: [Outlets; 2],
    /// Frames, bytes, copies.
    broadcasts: [(u64, u64, u64); 2],
    strangers: BTreeMap<[u8; 6], (u64, String)>,
    events: events,
    arrivals: Vec<Arrival>,
}

impl Model {
    fn not_delivered(&mut self, verdict: &Verdict, frame: &[u8]) {
        let at = match verdict {
            Verdict::Drop => return,
            Verdict::Pass => TRUNK,
            Verdict::Redirect(_) => OTHER_FAR,
        };
        self.arrivals.push(arrival(at, frame.to_vec()));
    }

    /// A frame comes in by the trunk.
    fn client_sends(&mut self, frame: &[u8]) {
        let mut tags = tags_of(frame);
        let (unknown, untagged) = (self.policy.unknown.clone(), self.policy.untagged.clone());
        if frame[12..14] != [0x81, 0] && frame[12..14] != [0x88, 0xa8] {
            self.events.untagged += 1;
            return self.not_delivered(&untagged, frame);
        }
        // Says that there is an inner tag, and ends within it.
        let inner = &frame[16..18];
        if frame.len() < 22 && (inner == [0x81, 0] || inner == [0x88, 0xa8]) {
            self.events.malformed += 1;
            return self.not_delivered(&unknown, frame);
        }
        // What is behind two tags is the client's own.
        tags.truncate(2);
        let source: [u8; 6] = frame[6..12].try_into().unwrap_or_default();
        let Some(client) = self.clients.get_mut(&source) else {
            self.events.unknown += 1;
            let known = self.strangers.entry(source).or_default();
            *known = (known.0 + 1, text(&tags));
            return self.not_delivered(&unknown, frame);
        };
        let has_moved = !client.tags.is_empty() && place(&client.tags) != place(&tags);
        if has_moved && self.policy.no_move {
            client.refused = tags;
            client.refusals += 1;
            self.events.refused += 1;
            return;
        }
        let outlets = &mut self.outlets[client.worker as usize];
        if has_moved {
            if client.is_listed {
                outlets.leave(&place(&client.tags));
            }
            client.is_listed = false;
            client.before = client.tags.clone();
            client.moves += 1;
            self.events.moved += 1;
        }
        if !client.is_listed {
            client.is_listed = outlets.join(&place(&tags));
            self.events.outlets_full += u64::from(!client.is_listed);
        }
        let bare = [&frame[..12], &frame[12 + 4 * tags.len()..]].concat();
        client.tags = tags;
        client.rx.0 += 1;
        client.rx.1 += counted(&bare);
        self.arrivals.push(arrival(far_end(client.worker), bare));
    }

    /// A frame comes in by a worker's interface. A tag of its own is not looked at.
    fn worker_sends(&mut self, worker: u32, frame: &[u8]) {
        let length = counted(frame);
        if frame[0] & 1 != 0 {
            let (frames, bytes, copies) = &mut self.broadcasts[worker as usize];
            *frames += 1;
            *bytes += length;
            let before = self.arrivals.len();
            for place in self.outlets[worker as usize].places() {
                self.arrivals.push(arrival(FAR, behind(place, frame)));
                *copies += 1;
            }
            self.events.nowhere += u64::from(self.arrivals.len() == before);
            return;
        }
        let destination: [u8; 6] = frame[..6].try_into().unwrap_or_default();
        match self.clients.get_mut(&destination) {
            Some(client) if client.worker == worker => {
                if client.tags.is_empty() {
                    self.events.to_unheard += 1;
                    return;
                }
                client.tx.0 += 1;
                client.tx.1 += length;
                self.arrivals
                    .push(arrival(FAR, behind(&client.tags, frame)));
            }
            _ => self.events.to_unknown += 1,
        }
    }

    fn remove(&mut self, mac: [u8; 6]) {
        if let Some(client) = self.clients.remove(&mac)
            && client.is_listed
        {
            self.outlets[client.worker as usize].leave(&place(&client.tags));
        }
    }
}

/// One of a few VLANs of either kind, with any priority.
fn any_tag(random: &mut Random) -> Tag {
    let id = [0, 1, 4094, 4095][random.below(4) as usize];
    let id = if random.below(8) == 0 {
        id
    } else {
        2 + random.below(12) as u16
    };
    let tag = if random.below(2) == 0 { q(id) } else { ad(id) };
    tag.with(random.below(16) as u16)
}

fn any_tags(random: &mut Random) -> Vec<Tag> {
    let number = [0, 1, 1, 1, 2, 2, 2, 3][random.below(8) as usize];
    (0..number).map(|_| any_tag(random)).collect()
}

/// A client's, mostly one that is configured; a stranger's; a group's, which nobody may have; nobody's.
fn any_mac(random: &mut Random) -> [u8; 6] {
    match random.below(20) {
        0 => [0; 6],
        1 => [0xff; 6],
        2 => [1, 0, 0x5e, 0, 0, random.below(4) as u8],
        3 | 4 => mac(1000 + random.below(STRANGERS.into()) as u16),
        _ => mac(random.below(CLIENTS.into()) as u16),
    }
}

/// Behind the addresses: an EtherType that says no tag, and any bytes.
fn any_rest(random: &mut Random, shortest: u64, longest: u64) -> Vec<u8> {
    let length = shortest + random.below(longest - shortest);
    let ether_type = [[0x08, 0x00], [0x86, 0xdd], [0x88, 0xb5], [0, 40]];
    let mut rest = ether_type[random.below(4) as usize].to_vec();
    rest.extend((0..length).map(|_| random.next() as u8));
    rest
}

/// What comes in by the trunk. A client keeps to its place for a while, else nearly every frame were a move.
fn any_client_frame(random: &mut Random, homes: &mut BTreeMap<[u8; 6], Vec<Tag>>) -> Vec<u8> {
    let (from, to) = (any_mac(random), any_mac(random));
    if random.below(16) == 0 {
        homes.remove(&from);
    }
    let tags = homes.entry(from).or_insert_with(|| any_tags(random));
    if let Some(tag) = tags.first_mut()
        && random.below(4) == 0
    {
        tag.tci = tag.tci & 0xfff | (random.below(16) as u16) << 12;
    }
    let addresses = [to, from].concat();
    match random.below(30) {
        // It ends within the inner tag that it speaks of. The kernel itself drops what is shorter.
        0 => {
            let cut = [0x88, 0xa8, 0x0f, 0xff][..2 + random.below(2) as usize].to_vec();
            let outer = any_tag(random);
            let short = behind(&[outer], &[&addresses[..], &cut].concat());
            [short, vec![0; 20]].concat()[..20 + random.below(2) as usize].to_vec()
        }
        // The kernel wants two bytes behind the EtherType of a tagged frame.
        1 => behind(tags, &[addresses, any_rest(random, 12, 30)].concat()),
        _ => behind(tags, &[addresses, any_rest(random, 46, 250)].concat()),
    }
}

fn any_worker_frame(random: &mut Random, is_broadcast: bool) -> Vec<u8> {
    let to = match (is_broadcast, random.below(2)) {
        (true, 0) => [0xff; 6],
        (true, _) => [0x33, 0x33, 0, 0, 0, random.below(9) as u8],
        (false, _) => {
            let mut to = any_mac(random);
            to[0] &= !1;
            to
        }
    };
    let frame = [&to[..], &WORKER_MAC, &any_rest(random, 46, 250)].concat();
    match random.below(4) {
        0 => behind(&[any_tag(random)], &frame),
        _ => frame,
    }
}

fn any_policy(random: &mut Random) -> Policy {
    let elsewhere = Verdict::Redirect(named("other0", OTHER));
    Policy {
        unknown: [Verdict::Drop, Verdict::Pass, elsewhere][random.below(3) as usize].clone(),
        untagged: [Verdict::Drop, Verdict::Pass][random.below(2) as usize].clone(),
        no_move: random.below(3) == 0,
    }
}

/// Some come, some go; never the last one of a worker, which would be let go of.
fn change_clients(random: &mut Random, rig: &mut Rig<'_>, model: &mut Model) {
    for number in 2..CLIENTS {
        let client = mac(number);
        let is_known = model.clients.contains_key(&client);
        if is_known && random.below(8) == 0 {
            rig.clients.remove(&client.into());
            model.remove(client);
        } else if !is_known && random.below(2) == 0 {
            let worker = worker_of(number);
            rig.clients.insert(client.into(), port(worker));
            let fresh = Client {
                worker,
                ..Client::default()
            };
            model.clients.insert(client, fresh);
        }
    }
    rig.change();
}

/// Seven of eight have the first one.
fn worker_of(number: u16) -> u32 {
    u32::from(number % 8 == 1)
}

/// At every interface in the order in which they came there.
fn by_interface(mut arrivals: Vec<Arrival>) -> Vec<Arrival> {
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

#[track_caller]
fn compare(rig: &Rig<'_>, model: &mut Model, arrived: Vec<Arrival>, what: &str) {
    let expected = by_interface(std::mem::take(&mut model.arrivals));
    let arrived = by_interface(arrived);
    for (number, (one, other)) in arrived.iter().zip(&expected).enumerate() {
        assert_eq!(one, other, "{what}: frame {number} of those that arrive");
    }
    assert_eq!(arrived.len(), expected.len(), "{what}: frames that arrive");
    rig.assert_events(std::mem::take(&mut model.events));
}

#[track_caller]
fn compare_tables(rig: &Rig<'_>, model: &Model) {
    for (mac, client) in &model.clients {
        let expected = Known {
            tags: text(&client.tags),
            is_listed: client.is_listed,
            moves: client.moves,
            before: text(&client.before),
            refusals: client.refusals,
            refused: text(&client.refused),
            rx: client.rx,
            tx: client.tx,
        };
        assert_eq!(rig.state(*mac), expected, "{mac:02x?}");
    }
    for worker in 0..2 {
        let expected = model.broadcasts[worker as usize];
        assert_eq!(rig.broadcasts(worker), expected, "worker {worker}");
    }
    let told = rig.strangers().into_iter();
    let told: Vec<_> = told.map(|(mac, known)| (mac.to_string(), known)).collect();
    let expected = model.strangers.iter();
    let expected: Vec<_> = expected
        .map(|(mac, known)| (netbpf::mac::Mac::from(*mac).to_string(), known.clone()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn generated_frames_go_where_a_model_says() {
    let name = "generated_frames_go_where_a_model_says";
    let long = long(name, "100,000 frames, not a million");
    let mut random = Random::new(name, long);
    run(name, Setup::default(), |rig| {
        let first = |number: u16| {
            let worker = worker_of(number);
            (
                mac(number),
                Client {
                    worker,
                    ..Client::default()
                },
            )
        };
        let mut model = Model {
            policy: Setup::default().policy,
            clients: [0, 1].map(first).into(),
            outlets: Default::default(),
            broadcasts: Default::default(),
            strangers: BTreeMap::new(),
            events: events::default(),
            arrivals: Vec::new(),
        };
        rig.add([0, 1].map(|number| (mac(number), worker_of(number))));
        let mut homes = BTreeMap::new();
        let (mut sent, mut arrived, mut moves, mut unlisted) = (0, 0, 0, 0);
        for round in 0.. {
            if round % 16 == 0 {
                change_clients(&mut random, rig, &mut model);
            }
            if round % 4 == 0 {
                model.policy = any_policy(&mut random);
                rig.set_policy(model.policy.clone());
            }
            let frames: Vec<_> = (0..FROM_CLIENTS)
                .map(|_| any_client_frame(&mut random, &mut homes))
                .collect();
            frames.iter().for_each(|frame| model.client_sends(frame));
            (arrived, moves) = (arrived + model.arrivals.len(), moves + model.events.moved);
            unlisted += model.events.outlets_full;
            let what = format!("round {round}, from clients, {:?}", model.policy);
            compare(rig, &mut model, rig.clients_send(&frames), &what);
            for worker in 0..2 {
                let frames: Vec<_> = (0..FROM_WORKER)
                    .map(|number| any_worker_frame(&mut random, number < BROADCASTS))
                    .collect();
                frames
                    .iter()
                    .for_each(|frame| model.worker_sends(worker, frame));
                arrived += model.arrivals.len();
                let what = format!("round {round}, from worker {worker}");
                compare(rig, &mut model, rig.worker_sends(worker, &frames), &what);
            }
            compare_tables(rig, &model);
            rig.forget_tallies();
            sent += frames.len() + 2 * FROM_WORKER;
            if sent >= FRAMES[usize::from(long)] {
                break;
            }
        }
        // That it was not all one case.
        assert!(unlisted > 0, "there was room for every place");
        assert!(
            arrived > sent / 3 && moves > sent as u64 / 200,
            "{arrived} {moves}"
        );
    });
}
