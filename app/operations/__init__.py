"""What watches the sources, and what operators, load balancers and Prometheus ask for."""
