//! The backplane: ordered connections between each two nodes, and what partitions do to them.
//!
//! | event | what becomes of a frame |
//! |---|---|
//! | a quiet link | arrives after the latency, never before a frame sent earlier on the same connection |
//! | a cut of one direction, no reset | is held back until the cut ends, as TCP would |
//! | more frames under way than may wait | the connection is reset: a full queue is never a lost frame |
//! | a reset | everything under way on the connection is lost, in both directions; both ends are told; a new one later |
//!
//! Frames of different connections overtake each other. Does not: hold frames (the world's queue does).
//! Source: ours; `tests/README.md`, The simulator.

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Frames stay where they are until then, true nanoseconds.
    cut_until_ns: u64,
    /// When the last frame arrives.
    last_ns: u64,
    /// Frames under way.
    waiting: usize,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It arrives then, on this connection.
    Arrives(u64, Generation),
    /// There is no connection.
    Down,
    /// Too many are under way: the connection is to be reset.
    Full,
}

/// All connections of a cluster.
#[derive(Clone, Debug)]
pub struct Net {
    nodes: usize,
    ways: Vec<Way>,
    /// Counts the connections of each pair; at [lower * nodes + higher].
    generations: Vec<u32>,
    /// No connection until then.
    down_until_ns: Vec<u64>,
    /// Frames under way on a connection, one direction, at most.
    waiting_max: usize,
}

/// Which connection of a pair a frame went onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

impl Net {
    /// Everyone connected with everyone.
    pub fn new(nodes: usize, waiting_max: usize) -> Net {
        let pairs = nodes * nodes;
        Net {
            nodes,
            ways: vec![Way::default(); pairs],
            generations: vec![0; pairs],
            down_until_ns: vec![0; pairs],
            waiting_max,
        }
    }

    fn pair(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.nodes + a.max(b)
    }

    /// What becomes of a frame that is sent now.
    pub fn send(&mut self, now_ns: u64, from: usize, to: usize, latency_ns: u64) -> Sent {
        let pair = self.pair(from, to);
        if self.down_until_ns[pair] > now_ns {
            return Sent::Down;
        }
        let way = &mut self.ways[from * self.nodes + to];
        if way.waiting >= self.waiting_max {
            return Sent::Full;
        }
        way.waiting += 1;
        let at = now_ns.max(way.cut_until_ns).saturating_add(latency_ns).max(way.last_ns.saturating_add(1));
        way.last_ns = at;
        Sent::Arrives(at, Generation(self.generations[pair]))
    }

    /// A frame's time has come: whether the connection that it went onto is still the one of the pair.
    pub fn arrives(&mut self, from: usize, to: usize, generation: Generation) -> bool {
        let is_current = self.generations[self.pair(from, to)] == generation.0;
        let way = &mut self.ways[from * self.nodes + to];
        way.waiting -= usize::from(is_current);
        is_current
    }

    /// Whether two nodes are connected.
    pub fn is_up(&self, now_ns: u64, a: usize, b: usize) -> bool {
        self.down_until_ns[self.pair(a, b)] <= now_ns
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize, until_ns: u64) {
        let way = &mut self.ways[from * self.nodes + to];
        way.cut_until_ns = way.cut_until_ns.max(until_ns);
    }

    /// Ends the connection of a pair: whatever was under way is lost, and there is no new one before `until_ns`.
    pub fn reset(&mut self, a: usize, b: usize, until_ns: u64) {
        let pair = self.pair(a, b);
        self.generations[pair] += 1;
        self.down_until_ns[pair] = self.down_until_ns[pair].max(until_ns);
        for way in [a * self.nodes + b, b * self.nodes + a] {
            (self.ways[way].last_ns, self.ways[way].waiting) = (0, 0);
        }
    }

    /// Ends all cuts and allows all connections.
    pub fn heal(&mut self) {
        self.ways.iter_mut().for_each(|way| way.cut_until_ns = 0);
        self.down_until_ns.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sent: Sent) -> (u64, Generation) {
        match sent {
            Sent::Arrives(at, generation) => (at, generation),
            Sent::Down | Sent::Full => panic!("{sent:?}"),
        }
    }

    #[test]
    fn frames_keep_their_order_within_a_connection_and_are_lost_with_it() {
        let mut net = Net::new(3, 8);
        let (slow, first) = at(net.send(0, 0, 1, 100));
        let (fast, _) = at(net.send(1, 0, 1, 10));
        let (other, second) = at(net.send(1, 0, 2, 10));
        assert!(slow < fast && other < slow);
        net.reset(1, 0, 50);
        assert!(!net.arrives(0, 1, first) && net.arrives(0, 2, second));
        assert!(net.send(49, 1, 0, 1) == Sent::Down && !net.is_up(49, 0, 1) && net.is_up(50, 0, 1));
        assert_eq!(at(net.send(50, 0, 1, 1)).0, 51);
    }

    #[test]
    fn a_cut_holds_one_direction_back_and_no_more_than_may_wait() {
        let mut net = Net::new(2, 2);
        net.cut(0, 1, 1000);
        let (first, of) = at(net.send(5, 0, 1, 1));
        assert_eq!((first, at(net.send(5, 0, 1, 1)).0), (1001, 1002));
        assert_eq!(net.send(5, 0, 1, 1), Sent::Full);
        assert_eq!(at(net.send(5, 1, 0, 1)).0, 6);
        assert!(net.arrives(0, 1, of));
        net.heal();
        assert_eq!(at(net.send(2000, 0, 1, 1)).0, 2001);
        net.reset(0, 1, 2000);
        assert_eq!(at(net.send(2000, 0, 1, 1)).0, 2001);
    }
}
