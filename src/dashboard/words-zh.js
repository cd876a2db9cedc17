// What the page says, in Simplified Chinese, and the fixed texts of the HTML files by their
// `data-say` names. Pure; no DOM. The same members as words-en.js.

import { isPageWord, ownStatus } from "./health.js";
import { MAX_DEPARTED } from "./metrics-client.js";
import { percent, spanIn } from "./numbers.js";

const units = {
  seconds: (seconds) => `${seconds}秒`,
  minutes: (minutes) => `${minutes}分`,
  hours: (hours, minutes) => `${hours}小时${minutes}分`,
  days: (days, hours) => `${days}天${hours}小时`,
};
const span = (ms) => spanIn(units, ms);

/** States are agents' own words, `constructor` too: nothing is inherited. */
const statuses = {
  __proto__: null,
  busy: "忙碌",
  idle: "空闲",
  error: "错误",
  failed: "失败",
  unhealthy: "不健康",
  draining: "排空中",
  maintenance: "维护中",
  paused: "已暂停",
};
const kinds = { busy: "忙碌", idle: "空闲", late: "延迟", error: "错误", paused: "暂停", other: "处于其他状态" };
const stateNames = {
  __proto__: null,
  lost: "失联",
  late: "延迟",
  high: "内存或磁盘将满",
  unheard: "未上报",
  offline: "离线",
  attention: "需要关注",
};
/** Kinds of states, in maps' legends. */
const kindNames = { __proto__: null, lost: "失联", error: "出错", late: "延迟", unheard: "未上报", paused: "暂停", other: "其他", busy: "忙碌", idle: "空闲" };
const stateCounts = {
  __proto__: null,
  lost: (number) => `${number} 个失联`,
  late: (number) => `${number} 个延迟`,
  high: (number) => `${number} 个内存或磁盘达到 90 %`,
  unheard: (number) => `${number} 个重启后未上报`,
  offline: (number) => `${number} 个离线`,
  attention: (number) => `${number} 个需要关注`,
};
const reasons = { goodbye: "已主动下线", timeout: "失去联系" };
const causes = {
  __proto__: null,
  "no answer": "没有响应",
  "nothing arrives": "没有收到数据",
  "nothing arrived any more": "长时间没有收到数据",
  "the connection broke": "连接中断",
  "the server is shutting down": "服务器正在关闭",
  "the server or a proxy refused the WebSocket": "服务器或代理拒绝了 WebSocket 连接",
  // 服务器的问题说明（problem detail）
  "a viewer token is needed, and none or a wrong one was sent": "需要查看令牌，但没有提供或提供了错误的令牌",
  "wrong viewer token": "令牌无效",
  "no such pool": "没有这个 Agent 池",
  "no such path": "没有这个地址",
  "this Host is not served here; see allowed_hosts": "服务器不接受此主机名；请查看 allowed_hosts",
  "this Origin is neither this server's, with its scheme, nor listed; see allowed_origins, and behind a proxy with TLS trusted_proxies":
    "此来源既不是服务器自身的（包括协议），也不在列表中；请查看 allowed_origins，TLS 代理之后请查看 trusted_proxies",
  "the server is stopping": "服务器正在停止",
  "the server is overloaded": "服务器过载",
  "the workers are overloaded": "服务器过载",
  "no worker answered in time": "服务器没有及时响应",
  "the request was lost on its way; try again": "请求丢失，请重试",
  "internal error": "服务器内部错误",
};

/** The sentences, by what they are for. */
export const say = {
  span,
  agents: (number) => `${number} 个 Agent`,
  ago: (ms) => `${span(ms)}前`,
  heardAgo: (ms) => `${span(ms)}前最后上报`,
  goneFor: (ms) => `已离线 ${span(ms)}`,
  unknown: "未知",
  pools: "Agent 池",

  title: (lost, trouble, places) => [lost, trouble, ...places, "agent-metrics"].filter((part) => part !== null).join(" · "),

  connection: {
    connecting: () => "正在连接…",
    live: () => "实时",
    silent: () => "非实时",
    waiting: (seconds) => (seconds > 0 ? `${seconds} 秒后重新连接` : "正在重新连接…"),
    refused: () => "被拒绝",
    stopped: () => "非实时",
  },
  loginNeeded: "需要登录",
  disconnected: "连接已断开",
  stale: (ms, reason) => `未连接${reason ? `：${reason}` : ""}。当前显示的是 ${span(ms)}前的状态。`,
  silent: (ms) => `服务器已有 ${span(ms)}没有发送数据。当前显示的是当时的状态。`,
  unreachable: (reason) => `无法连接服务器${reason ? `（${reason}）` : ""}，页面会继续重试。`,
  refused: (reason) => `服务器拒绝了此页面：${reason}`,
  restarted: (time, unheard) =>
    `服务器已于 ${time} 重启。${unheard === 0 ? "此前在线的 Agent 均已重新上报。" : `此后还有 ${unheard} 个 Agent 没有上报。`}`,
  noSuchPool: (poolId) => `没有 Agent 池“${poolId}”，或者您无权查看。`,
  // 总览
  restartedPools: (time, missing) =>
    `服务器已于 ${time} 重启。${missing === 0 ? "每个池的 Agent 都不少于此前。" : `上报的 Agent 比此前少 ${missing} 个。`}`,
  poolsHeadline: ({ pools, agents, troubled, attention, tasksLost }) => {
    if (attention > 0) return `${troubled} 个池中有 ${attention} 个 Agent 需要关注${tasksLost > 0 ? `，丢失了 ${tasksLost} 个任务` : ""}`;
    return agents === 0 ? `${pools} 个池中没有 Agent 在上报` : `${pools} 个池中的 ${agents} 个 Agent 全部正常`;
  },
  needs: ({ attention, tasksLost }) => `${stateCounts.attention(attention)}${tasksLost > 0 ? `，丢失 ${tasksLost} 个任务` : ""}`,
  freeOf: (free, total) => `${free} / ${total} 空闲`,
  kind: (number, kind) => `${number} 个${kinds[kind]}`,
  // Agent 页面
  agentHeard: (silence) => `${span(silence)}前上报`,
  agentLate: (silence, limit, status) => `已有 ${span(silence)}没有上报，应在 ${span(limit)}内上报；当时状态为${status}`,
  agentUnheard: (time, silence) => `自服务器 ${time} 重启后没有上报，${span(silence)}前最后上报`,
  agentGone: (reason, ms) => `${span(ms)}前${reason === "goodbye" ? "主动下线" : "失去联系"}`,
  tasksRunning: (number) => `正在运行 ${number} 个任务`,
  tasksHeld: (number) => (number === 0 ? "任务" : `离线时正在运行 ${number} 个任务`),
  startedAt: (time) => `开始于 ${time}`,
  fact: { id: "Agent ID", heard: "最后心跳", gone: "离线时间", rhythm: "心跳间隔", capacity: "任务数", version: "版本" },
  every: (interval) => `每 ${interval}`,
  slots: (running, capacity) => `${running}，最多 ${capacity}`,
  chartWords: (cpu, memory) =>
    `最近 15 分钟：CPU ${percent(cpu.min)} 至 ${percent(cpu.max)}，内存 ${percent(memory.min)} 至 ${percent(memory.max)}`,
  chartEmpty: "最近 15 分钟没有收到上报",
  noSuchAgent: (agentId) => `自服务器启动以来，Agent“${agentId}”没有向此池上报过，或者早已离开。`,
  noPools: "此服务器上没有您可以查看的 Agent 池。Agent 池在服务器的配置文件中设置。",
  cause: (reason) =>
    causes[reason] ?? reason?.replace(/^the server closed the connection \((\d+)\)$/, "服务器关闭了连接（$1）") ?? null,

  status: (status) => statuses[status] ?? (isPageWord(status) ? `“${status}”` : status),
  stateName: (state) => stateNames[state] ?? say.status(ownStatus(state)),
  state: (number, state) => {
    if (state in stateCounts) return stateCounts[state](number);
    const status = ownStatus(state);
    return `${number} 个${statuses[status] ?? ` ${say.status(status)}`}`;
  },
  others: (number) => `${number} 个处于其他状态`,
  room: ({ agents, departed, unheard, reporting, room }) => {
    if (agents + departed + unheard === 0) return "还没有 Agent 上报";
    if (agents === 0 && unheard > 0) return "重启后还没有 Agent 上报";
    if (reporting === 0) return "已经没有 Agent 在上报";
    if (room.slots !== null) return `${room.slots.all} 个任务槽中有 ${room.slots.free} 个空闲`;
    return `${agents} 个 Agent 中有 ${room.free} 个可以接新任务`;
  },
  headline: ({ agents, departed, unheard, attention, paused, tasksLost, isCut }) => {
    if (attention > 0) return `${isCut ? "至少 " : ""}${stateCounts.attention(attention)}${tasksLost > 0 ? `，丢失了 ${tasksLost} 个任务` : ""}`;
    if (agents + departed + unheard === 0) return "还没有上报";
    const well = agents - paused;
    const parts = [];
    if (well > 0) parts.push(well === agents && unheard === 0 ? `${well} 个全部正常` : `${well} 个正常`);
    if (paused > 0) parts.push(`${paused} 个暂停`);
    if (unheard > 0) parts.push(`${unheard} 个重启后尚未上报`);
    return parts.length > 0 ? parts.join("，") : "已经没有 Agent 在上报";
  },
  whyLost: (tasks) => (tasks === 0 ? "失联" : `失联，带有 ${tasks} 个任务`),
  whyMemory: (used) => `内存 ${percent(used)}`,
  whyDisk: (used) => `磁盘 ${percent(used)}`,
  showAll: (number) => `显示全部 ${number} 个`,
  andMore: (number) => `还有 ${number} 个`,
  goodbyes: (number) => `${number < MAX_DEPARTED ? "" : "至少 "}${number} 个已主动下线`,
  markSeen: (number) => `已知悉：${number} 个失联不再需要关注`,
  map: "Agent 地图",
  copied: "已复制",
  pressCopyKeys: (keys) => `已选中，请按 ${keys}`,

  meanAndMax: (load) => `平均 ${percent(load.mean)}，最高 ${percent(load.max)}`,
  highest: (load) => `最高 ${percent(load.max)}`,
  cpu: "CPU",
  memory: "内存",
  disk: "磁盘",
  trend: (ms) => `最近 ${span(ms)}的 CPU 与内存`,

  unheardSince: (time) => `自 ${time} 重启后`,
  noTask: "没有任务",
  moreTasks: (number) => `+${number} 个任务`,
  lastHeld: (number) => (number === 0 ? "当时没有任务" : "当时正在运行"),
  reason: (reason) => reasons[reason] ?? reason,

  shown: (shown, total) => (shown === total ? `显示全部 ${total} 个` : `显示 ${shown} / ${total} 个`),
  ascending: "升序",
  descending: "降序",

  // Maps and walls.
  wall: "大屏",
  wallMore: (shown, total) => `${total} 个 Agent 池中的前 ${shown} 个。用 /wall?pools=a,b 选择`,
  kindCount: (number, kind) => `${number} ${kindNames[kind]}`,
  tasks: (number) => `${number} 个任务`,
  tasksWithAge: (number, longest) => `${number} 个任务${longest === null ? "" : ` · ${number === 1 ? "" : "最长 "}${span(longest)}`}`,

  login: {
    failed: "令牌无效。",
    stillIn: (problem) => `未能退出登录。${problem}`,
    unreachable: "无法连接服务器，请稍后再试。",
    other: (detail) => `服务器拒绝了请求：${detail}`,
  },
};

/** The fixed texts of the HTML files. */
export const fixed = {
  leaveWall: "退出大屏视图（Escape）",
  loadLow: "负载：低",
  loadHigh: "高",
  skip: "跳到主要内容",
  place: "位置",
  connecting: "正在连接…",
  retry: "立即重试",
  dismiss: "关闭",
  pools: "Agent 池",
  allPools: "所有 Agent 池",
  tokenNeeded: "需要令牌才能查看",
  token: "令牌",
  logIn: "登录",
  logOut: "退出登录",
  logInTitle: "登录 · agent-metrics",
  poolSearchHint: "池的名称或 ID",
  noPoolLeft: "没有名称符合的池。",
  wallView: "大屏视图",
  toPool: "此池的所有 Agent",
  reports: "上报内容",
  lastQuarter: "最近 15 分钟",
  noHistory: "这段时间没有收到上报。",
  about: "实时显示您的 Agent 正在做什么。",
  loginFailed: "令牌无效。",
  tokenHelp: "请向部署服务器的人索取：运行 agent-metrics init 时显示过一次。",
  poolsLabel: "Agent 池",
  agents: "Agent",
  states: "按状态统计的 Agent",
  cpu: "CPU",
  memory: "内存",
  agent: "Agent",
  state: "状态",
  tasks: "运行中的任务",
  memoryShort: "内存",
  disk: "磁盘",
  trend: "趋势",
  tools: "排序与筛选",
  search: "筛选",
  searchHint: "筛选（/）",
  summary: "概况",
  mapHint: "下方列表以文字显示同样的 Agent。",
  seen: "已知悉",
  roomLabel: "余量",
  fold: "筛选与排序",
  wall: "大屏",
  roomy: "宽松",
  copy: "复制",
  sort: "排序",
  byTrouble: "问题优先",
  byName: "按名称",
  byState: "按状态",
  byCpu: "按 CPU",
  byMemory: "按内存",
  byHeard: "按最后上报",
  byTasks: "按任务数",
  hideOffline: "隐藏离线 Agent",
  layout: "布局",
  table: "表格",
  grid: "网格",
  nothing: "没有符合筛选条件的 Agent。",
  clear: "清除筛选",
  emptyTitle: "还没有 Agent 上报",
  emptyCurl: "Agent 发出第一次心跳后就会出现在这里。可以在终端里发送一次：",
  emptyAgent: "或者让一台机器每 30 秒上报真实数据：",
  emptySecret: "SECRET 是这个 App Key 的 App Secret：",
  emptyKeys: "KEY 和 SECRET 是这个 Agent 池的 App Key 和 App Secret：",
};
