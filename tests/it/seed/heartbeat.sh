curl -X POST http://localhost:8080/api/v1/agents/{agent_id}/ping \
  -H "X-App-Key: xxx" \
  -H "X-App-Secret: xxx" \
  -H "Content-Type: application/json" \
  -d '{
    "status": "busy",
    "cpu_usage": 45.5,
    "memory_usage": 62.3,
    "running_tasks": [
      {
        "task_id": 123,
        "task_type": "plan",
        "workspace_id": "ws-xxx",
        "started_at": "2025-01-07T10:30:00Z"
      }
    ]
  }'
