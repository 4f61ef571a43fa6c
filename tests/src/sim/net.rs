//! The backplane: ordered connections between each two nodes, and what partitions do to them.
//!
//! | event | what becomes of a frame |
//! |---|---|
//! | a quiet link | arrives after the latency, never before a frame sent earlier on the same connection |
//! | a cut of one direction, no reset | is held back until the cut ends, as TCP would |
//! | a reset | everything under way on the connection is lost, in both directions; both ends are told; a new one later |
//!
//! Frames of different connections overtake each other. Does not: hold frames (the world's queue does). Source: ours; coordination
//! reference, section 5.

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Frames stay where they are until then, true nanoseconds.
    cut_until_ns: u64,
    /// When the last frame arrives.
    last_ns: u64,
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
}

/// Which connection of a pair a frame went onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

impl Net {
    /// Everyone connected with everyone.
    pub fn new(nodes: usize) -> Net {
        let pairs = nodes * nodes;
        Net {
            nodes,
            ways: vec![Way::default(); pairs],
            generations: vec![0; pairs],
            down_until_ns: vec![0; pairs],
        }
    }

    fn pair(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.nodes + a.max(b)
    }

    /// When a frame that is sent now arrives, and on which connection; `None` when there is no connection.
    pub fn send(
        &mut self,
        now_ns: u64,
        from: usize,
        to: usize,
        latency_ns: u64,
    ) -> Option<(u64, Generation)> {
        let pair = self.pair(from, to);
        if self.down_until_ns[pair] > now_ns {
            return None;
        }
        let way = &mut self.ways[from * self.nodes + to];
        let at = now_ns.max(way.cut_until_ns).saturating_add(latency_ns).max(way.last_ns.saturating_add(1));
        way.last_ns = at;
        Some((at, Generation(self.generations[pair])))
    }

    /// Whether the connection that a frame went onto is still the one of the pair.
    pub fn is_current(&self, from: usize, to: usize, generation: Generation) -> bool {
        self.generations[self.pair(from, to)] == generation.0
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
        self.ways[a * self.nodes + b].last_ns = 0;
        self.ways[b * self.nodes + a].last_ns = 0;
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

    #[test]
    fn frames_keep_their_order_within_a_connection_and_are_lost_with_it() {
        let mut net = Net::new(3);
        let (slow, first) = net.send(0, 0, 1, 100).unwrap();
        let (fast, _) = net.send(1, 0, 1, 10).unwrap();
        let (other, _) = net.send(1, 0, 2, 10).unwrap();
        assert!(slow < fast && other < slow);
        net.reset(1, 0, 50);
        assert!(!net.is_current(0, 1, first) && net.is_current(0, 2, first));
        assert!(net.send(49, 1, 0, 1).is_none() && !net.is_up(49, 0, 1) && net.is_up(50, 0, 1));
        assert_eq!(net.send(50, 0, 1, 1).unwrap().0, 51);
    }

    #[test]
    fn a_cut_holds_one_direction_back() {
        let mut net = Net::new(2);
        net.cut(0, 1, 1000);
        assert_eq!(net.send(5, 0, 1, 1).unwrap().0, 1001);
        assert_eq!(net.send(5, 1, 0, 1).unwrap().0, 6);
        net.heal();
        assert_eq!(net.send(2000, 0, 1, 1).unwrap().0, 2001);
    }
}
