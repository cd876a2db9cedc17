const ws = new WebSocket(`ws://localhost:8080/ws/agent-pools/${poolId}/metrics`);

ws.onmessage = (event) => {
  const message = JSON.parse(event.data);
  
  if (message.type === 'initial_metrics') {
    // 初始化显示所有agent的metrics
    setAgentMetrics(message.metrics);
  } else if (message.type === 'metrics_update') {
    // 更新单个agent的metrics
    updateAgentMetrics(message.metrics);
  } else if (message.type === 'agent_offline') {
    // 标记agent为离线
    markAgentOffline(message.metrics.agent_id);
  }
};
