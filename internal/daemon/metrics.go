package daemon

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway/fsm"
	"gateway/queue"
)

// turnBuckets are in seconds: an echo, a tool, a model, a long piece of work.
var turnBuckets = []float64{.001, .005, .02, .1, .5, 2, 10, 60, 300, 1800}

// metrics are what /metrics shows. Gauges are read from the published snapshots at each scrape; only the
// durations are kept here.
type metrics struct {
	d        *Daemon
	front    atomic.Pointer[front] // nil until there is one
	registry *prometheus.Registry
	lasted   *prometheus.HistogramVec
	waited   prometheus.Histogram
	ran      *prometheus.HistogramVec
	requests *prometheus.CounterVec
	signals  *prometheus.CounterVec

	state, ready, hops, late, ignored, impossible *prometheus.Desc
	turns, damaged, build                         *prometheus.Desc
	laneRunning, laneQueued, lanePaused, ended    *prometheus.Desc
	connections, webSockets, held                 *prometheus.Desc
	answers, sentAway                             *prometheus.Desc
}

func newMetrics(d *Daemon) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gateway_"+name, help, labels, nil)
	}
	m := &metrics{
		d: d, registry: prometheus.NewRegistry(),
		lasted: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_state_duration_seconds", Help: "How long a state lasted before it was left.",
			Buckets: []float64{.001, .005, .02, .1, .5, 1, 5, 30, 300, 3600},
		}, []string{"state"}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gateway_turn_wait_seconds", Help: "How long turns that have ended were accepted before their last attempt started.", Buckets: turnBuckets,
		}),
		ran: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_turn_run_seconds", Help: "How long the last attempts of turns took that have ended.", Buckets: turnBuckets,
		}, []string{"agent", "status"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_lifecycle_requests_total",
			Help: "Requests for a stop, restart or resume, by decision: accepted, coalesced, postponed or ignored.",
		}, []string{"event", "outcome"}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_refused_signals_total", Help: "Signals that were refused: not authorised, or an invalid configuration on disk.",
		}, []string{"signal"}),
		state:       desc("state", "1 for the state that the lifecycle is in, 0 for the others.", "state"),
		ready:       desc("ready", "1 when queued turns are started."),
		hops:        desc("hops_total", "Hops of the lifecycle, those of the process images before this one included."),
		late:        desc("late_outcomes_total", "Outcomes and deadlines that came after their state was left, and were dropped."),
		ignored:     desc("ignored_events_total", "Events that the table ignores where they came."),
		impossible:  desc("impossible_events_total", "Events that cannot come where they came. More than 0 is a bug."),
		turns:       desc("turns", "Turns of this generation: running, queued, or stuck (abandoned because they ignored their end).", "status"),
		laneRunning: desc("lane_running", "Turns that run in the lane.", "lane"),
		laneQueued:  desc("lane_queued", "Turns that wait in the lane.", "lane"),
		lanePaused:  desc("lane_paused", "1 when the lane is paused.", "lane"),
		ended:       desc("turns_ended_total", "Turns of the lane that have ended for good.", "lane", "status"),
		connections: desc("connections", "Open TCP connections, WebSockets among them."),
		webSockets:  desc("websockets", "WebSocket clients that were greeted."),
		held:        desc("held_requests", "Requests that wait for the lifecycle to let them in, as in a restart."),
		answers:     desc("http_answers_total", "Answers to HTTP requests; 101 is a WebSocket.", "code"),
		sentAway:    desc("refused_connections_total", "Connections beyond a limit, by its key in the configuration.", "limit"),
		damaged:     desc("store_damaged", "1 when the store was looked through after a crash and is not whole."),
		build:       desc("build_info", "1; the version is the label.", "version", "boot_id"),
	}
	m.registry.MustRegister(m, m.lasted, m.waited, m.ran, m.requests, m.signals, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// observe keeps how long the state before the hop lasted.
func (m *metrics) observe(h fsm.Hop) {
	if h.From != "" && h.From != h.To {
		m.lasted.WithLabelValues(string(h.From)).Observe(h.LastedMS / 1000)
	}
}

// turnEnded keeps how long a turn waited and ran.
func (m *metrics) turnEnded(t queue.Turn) {
	if t.StartedAt == nil || t.FinishedAt == nil {
		return
	}
	m.waited.Observe(max(0, t.StartedAt.Sub(t.CreatedAt)).Seconds()) // the clock may have been set back
	m.ran.WithLabelValues(t.Agent, string(t.Status)).Observe(max(0, t.FinishedAt.Sub(*t.StartedAt)).Seconds())
}

// decided counts what became of a request.
func (m *metrics) decided(r fsm.Request, d fsm.Decision) {
	m.requests.WithLabelValues(string(r.Event), string(d.Outcome)).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.state, m.ready, m.hops, m.late, m.ignored, m.impossible, m.turns, m.damaged, m.build,
		m.laneRunning, m.laneQueued, m.lanePaused, m.ended, m.connections, m.webSockets, m.held, m.answers, m.sentAway,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := m.d.machine.Snapshot()
	for _, spec := range fsm.Lifecycle().States {
		gauge(m.state, one(spec.Name == s.State), string(spec.Name))
	}
	gauge(m.ready, one(s.Ready))
	counter(m.hops, s.Hop)
	counter(m.late, s.Counters.Late)
	counter(m.ignored, s.Counters.Ignored)
	counter(m.impossible, s.Counters.Impossible)
	gauge(m.build, 1, m.d.Version, m.d.bootID)
	m.collectServer(gauge, counter)
	q := m.d.current.Load().lanes
	if q == nil {
		return
	}
	st := q.Stats()
	gauge(m.turns, float64(st.Running), "running")
	gauge(m.turns, float64(st.Queued), "queued")
	gauge(m.turns, float64(st.Stuck), "stuck")
	gauge(m.damaged, one(st.Damaged))
	for _, l := range q.Lanes() {
		gauge(m.laneRunning, float64(l.Running), l.Name)
		gauge(m.laneQueued, float64(l.Queued), l.Name)
		gauge(m.lanePaused, one(l.Paused), l.Name)
		counter(m.ended, uint64(l.Ended.Completed), l.Name, string(queue.Completed))
		counter(m.ended, uint64(l.Ended.Failed), l.Name, string(queue.Failed))
		counter(m.ended, uint64(l.Ended.Cancelled), l.Name, string(queue.Cancelled))
	}
}

func (m *metrics) collectServer(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	f := m.front.Load()
	if f == nil {
		return
	}
	st := (*f).Stats()
	gauge(m.connections, float64(st.Connections))
	gauge(m.webSockets, float64(st.WebSockets))
	gauge(m.held, float64(st.Held))
	for code, n := range st.Answers {
		counter(m.answers, n, strconv.Itoa(code))
	}
	for limit, n := range st.SentAway {
		counter(m.sentAway, n, limit)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
